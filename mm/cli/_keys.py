"""Keys of the config files with their defaults, types and descriptions, read without importing torch.

The help of a verb and the reference pages of the manual are both made from this.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PACKAGE = Path(__file__).resolve().parents[1]  # the folder of `mm`
CONF = PACKAGE / "conf"
TYPES = {"bool": "bool", "int": "int", "float": "float", "str": "str", "seq": "list", "map": "mapping", "null": ""}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast, and not everywhere


class Key(NamedTuple):
    """One key of a config file.

    Attributes:
        name: The dotted name below the file's package, such as `frontend.hop`.
        default: The value as the file has it.
        type: The type in Python's notation; empty where nothing states it.
        description: One sentence; empty where there is none.
    """

    name: str
    default: str
    type: str
    description: str


class Argument(NamedTuple):
    """One argument of a class: its annotation, its default and its description."""

    type: str
    default: str | None
    description: str


def read_title(file: Path) -> str:
    """Return the comment lines at the top of a config file, without `# @package`."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("#").strip())
    return "\n".join(lines)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the content of a config file as plain data."""
    return yaml.load(file.read_text(encoding="utf-8"), LOADER) or {}  # safe: one of PyYAML's two safe loaders


def read_summary(file: Path) -> str:
    """Return the first paragraph of the class that a config file builds; empty for classes of other packages."""
    match = re.search(r"^_target_: (\S+)$", file.read_text(encoding="utf-8"), re.M)
    module, _, name = match[1].rpartition(".") if match else ("", "", "")
    source = module_file(module) if module else None
    node = next((n for n in parsed(source).body if getattr(n, "name", None) == name), None) if source else None
    text = (ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
    return " ".join(text.split("\n\n")[0].split())


def read_keys(file: Path) -> list[Key]:
    """Return the keys of a config file in their order, without its defaults list."""
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=LOADER)
    if not isinstance(root, yaml.MappingNode):
        return []
    return list(walk(root, "", text.splitlines(), {}))


def walk(node: yaml.MappingNode, prefix: str, lines: list[str], arguments: dict[str, Argument]) -> Iterator[Key]:
    """Yield the keys below a mapping; a mapping in braces is one key, unless it is built of a class."""
    target = next((value.value for key, value in node.value if key.value == "_target_"), None)
    arguments = read_arguments(target) if target else arguments if not prefix else {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name == "defaults" or key.value.startswith("_"):
            continue
        described = arguments.get(key.value, Argument("", None, ""))
        note = comment_of(key, value, lines) or described.description
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            if note:
                yield Key(name, "", "mapping", note)
            yield from walk(value, f"{name}.", lines, {})
            continue
        kind = described.type or type_of(value, key.value)
        yield Key(name, source_of(value, lines), kind, note)


def type_of(node: yaml.Node, name: str) -> str:
    """Return the type that a default shows: none for null, for what the data fills and for a reference."""
    if isinstance(node, yaml.ScalarNode) and (node.value == "???" or "${" in node.value):
        return ""
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", node.value):
        return "float"  # YAML 1.1 reads 1e-3 as a text, Hydra as a number
    return TYPES.get(node.tag.rpartition(":")[2], "")


def type_of_value(value: object) -> str:
    """Return the type of a plain value; empty for null, for what the data fills and for a reference."""
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return ""
    return "mapping" if isinstance(value, dict) else type(value).__name__


def source_of(node: yaml.Node, lines: list[str]) -> str:
    """Return a value as it is written in the file, on one line."""
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return "[" + ", ".join(source_of(item, lines).removeprefix("- ") for item in node.value) + "]"
    first = lines[start.line][start.column :]
    return " ".join([first.strip(), *(line.strip() for line in lines[start.line + 1 : end.line + 1])]).split(" #")[0]


def comment_of(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """Return the comment behind a value, or behind its key, or on the lines above it."""
    block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    line = key.start_mark.line if block else value.end_mark.line
    column = key.end_mark.column if block else value.end_mark.column
    rest = lines[line][column:] if line < len(lines) else ""
    match = re.search(r"(?:^|\s)#\s?(.*)$", rest)
    if match:
        return match[1].strip()
    above: list[str] = []
    number = key.start_mark.line - 1
    while number > 0 and lines[number].strip().startswith("#"):  # line 0 is the file's title
        above.insert(0, lines[number].strip().lstrip("#").strip())
        number -= 1
    return "" if number == 0 and lines[0].startswith("#") else " ".join(above)


@cache
def read_arguments(target: str) -> dict[str, Argument]:
    """Return the arguments of a class or function of `mm`, with those of its bases, read from its source.

    Args:
        target: A dotted name, such as `mm.fusion.gated.GatedFusion`.

    Returns:
        Argument name to its annotation, default and description; empty for classes of other packages.
    """
    module, _, name = target.rpartition(".")
    file = module_file(module)
    return arguments_of(file, name, depth=4) if file is not None else {}


def module_file(module: str) -> Path | None:
    """Return the source file of a module of `mm`; None for other packages."""
    if module.split(".")[0] != "mm":
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a source file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def arguments_of(file: Path, name: str, depth: int) -> dict[str, Argument]:
    """Return the arguments of one class or function of a file."""
    tree = parsed(file)
    node = next((n for n in tree.body if getattr(n, "name", None) == name), None)
    if node is None:  # re-exported
        where = imported_from(tree, name)
        return arguments_of(where, name, depth - 1) if where and depth else {}
    described = described_arguments(ast.get_docstring(node) or "")  # type: ignore[arg-type]
    if isinstance(node, ast.FunctionDef):
        return signature_of(node, described)
    assert isinstance(node, ast.ClassDef)
    inherited: dict[str, Argument] = {}
    for base in node.bases if depth else ():
        called = ast.unparse(base)
        where = file if any(getattr(n, "name", None) == called for n in tree.body) else imported_from(tree, called)
        inherited |= arguments_of(where, called, depth - 1) if where else {}
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is not None:
        described |= described_arguments(ast.get_docstring(init) or "")
        own = signature_of(init, described)
    else:
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        own = {
            n.target.id: Argument(  # type: ignore[union-attr]
                ast.unparse(n.annotation),
                ast.unparse(n.value) if n.value else None,
                described.get(n.target.id, ""),  # type: ignore[union-attr]
            )
            for n in fields
        }
    return inherited | own


def imported_from(tree: ast.Module, name: str) -> Path | None:
    """Return the file of `mm` that a module imports a name from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and any(a.name == name for a in node.names):
            return module_file(node.module)
    return None


def signature_of(node: ast.FunctionDef, described: dict[str, str]) -> dict[str, Argument]:
    """Return the arguments of a function but `self`."""
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    pairs = [*zip(positional, [*defaults, *args.defaults], strict=True), *zip(args.kwonlyargs, args.kw_defaults)]
    return {
        arg.arg: Argument(
            ast.unparse(arg.annotation) if arg.annotation else "",
            ast.unparse(default) if default is not None else None,
            described.get(arg.arg, ""),
        )
        for arg, default in pairs
        if arg.arg != "self"
    }


def described_arguments(docstring: str) -> dict[str, str]:
    """Return the descriptions of arguments in a docstring.

    Both Google's `Args:` section and a paragraph of `name: text; name: text` are read.
    """
    found: dict[str, str] = {}
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", docstring, re.M)
    if section:
        lines = section[1].splitlines()
        indent = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        for entry in re.split(rf"\n(?= {{{indent}}}\S)", "\n".join(lines)):
            name, colon, text = entry.strip().partition(":")
            if colon:
                found[name.split("(")[0].strip()] = " ".join(text.split())
        return found
    for paragraph in re.split(r"\n\s*\n|\n(?=[a-z_, ]+: |Errors: )", docstring):
        for part in " ".join(paragraph.split()).split("; "):
            match = re.match(r"((?:[a-z_]\w*)(?:, [a-z_]\w*)*): (.+)", part)
            if match:
                found |= dict.fromkeys(match[1].split(", "), match[2].rstrip("."))
    return found
