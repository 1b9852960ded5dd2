"""Keys of the config files with their defaults, types and descriptions, read without importing torch.

The `--help` of the verbs and the reference pages of the manual are made from them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mm.assembly.signatures import PACKAGE, Argument, default_arguments, module_file, parsed, read_arguments

CONF = PACKAGE / "conf"
TYPES = {"bool": "bool", "int": "int", "float": "float", "str": "str", "seq": "list", "map": "mapping", "null": ""}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast, and not everywhere


class Key(NamedTuple):
    """One key of a config file.

    Attributes:
        name: Dotted name, relative to the package of the file, such as `frontend.hop`.
        default: The value as it is written in the file.
        type: The type in Python's notation; empty if it is unknown.
        description: One sentence; empty if there is none.
    """

    name: str
    default: str
    type: str
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
    """Return the first paragraph of the docstring of the class that a config file builds.

    It is empty for classes of packages other than `mm`.
    """
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
    """Yield the keys of a YAML mapping and of its nested mappings.

    A nested mapping in braces (flow style) counts as a single key. If the mapping has a `_target_`, the arguments of
    its class that the file leaves out follow at the end.

    Args:
        node: The mapping.
        prefix: Dotted prefix of the names; "" for the top of the file.
        lines: Lines of the file.
        arguments: Arguments of the class that the mapping at the top of the file is for.
    """
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
    present = {key.value for key, _ in node.value}
    for argument, default in default_arguments(target).items() if target else ():
        if argument not in present:
            described = arguments[argument]
            yield Key(f"{prefix}{argument}", as_yaml(default), described.type, described.description)


def as_yaml(value: Any) -> str:
    """Return a value in YAML notation, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def type_of(node: yaml.Node, name: str) -> str:
    """Return the type of a default value in YAML; "" for null, for `???` and for an interpolation.

    Args:
        node: The YAML node of the value.
        name: Name of the key.
    """
    if isinstance(node, yaml.ScalarNode) and (node.value == "???" or "${" in node.value):
        return ""
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", node.value):
        return "float"  # YAML 1.1 reads 1e-3 as a text, Hydra as a number
    return TYPES.get(node.tag.rpartition(":")[2], "")


def type_of_value(value: object) -> str:
    """Return the type of a plain value; "" for null, for `???` and for an interpolation."""
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
    """Return the comment after a value or after its key, or else the comment on the lines above it."""
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
