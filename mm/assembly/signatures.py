"""Arguments of the classes of `mm` with defaults, types and descriptions, read from the source without importing it.

A default is written in the signature only. Arguments that a yaml of `conf` leaves out are filled in from it.
"""

import ast
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]  # the folder of `mm`
# Names in the annotation of an argument that a config can hold; others are objects, which code passes on.
PLAIN = {"Any", "Literal", "Mapping", "None", "Path", "Sequence"}
PLAIN |= {"bool", "dict", "float", "int", "list", "str", "tuple"}


class Argument(NamedTuple):
    """One argument of a class: its annotation, default and description, as strings."""

    type: str
    default: str | None
    description: str


@cache
def read_arguments(target: str) -> dict[str, Argument]:
    """Return the arguments of a class or function of `mm`, including those of its base classes.

    Args:
        target: A dotted name, such as `mm.fusion.gated.GatedFusion`.

    Returns:
        Argument name to its annotation, default and description; empty for classes of other packages.
    """
    module, _, name = target.rpartition(".")
    file = module_file(module)
    return arguments_of(file, name, depth=4) if file is not None else {}


def module_file(module: str) -> Path | None:
    """Return the source file of a module of `mm`; None for modules of other packages."""
    if module.split(".")[0] != "mm":
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a source file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def arguments_of(file: Path, name: str, depth: int) -> dict[str, Argument]:
    """Return the arguments of a class or function in a source file.

    Args:
        file: The source file, which defines or imports the class.
        name: Name of the class or function.
        depth: Maximum number of base classes and re-exports to follow.
    """
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
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    passes_on = init is None or init.args.kwarg is not None
    for base in node.bases if depth and passes_on else ():
        called = ast.unparse(base)
        where = file if any(getattr(n, "name", None) == called for n in tree.body) else imported_from(tree, called)
        inherited |= arguments_of(where, called, depth - 1) if where else {}
    # A class may describe an argument that it inherits, in terms of what it means there.
    inherited = {arg: one._replace(description=described.get(arg) or one.description) for arg, one in inherited.items()}
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
    """Return the source file of the `mm` module from which a module imports a name; None if there is no such import."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and any(a.name == name for a in node.names):
            return module_file(node.module)
    return None


def signature_of(node: ast.FunctionDef, described: dict[str, str]) -> dict[str, Argument]:
    """Return the arguments of a function, without `self`.

    Args:
        node: Syntax tree of the function.
        described: Argument name to description.
    """
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
    """Return the descriptions of the arguments in a docstring, by argument name.

    It reads the sections `Args:` and `Attributes:` of Google style, or else paragraphs of the form `name: text; name:
    text`.
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


def default_arguments(target: str) -> dict[str, Any]:
    """Return the arguments of a class of `mm` that have a default which a config can contain.

    Arguments that a class passes on to its base class are left out; those of all data modules are in conf/datamodule.

    Args:
        target: A dotted name, as in `_target_`.

    Returns:
        Argument name to default, in the order of the signature; empty for classes of other packages.
    """
    return deepcopy(_default_arguments(target))


@cache
def _default_arguments(target: str) -> dict[str, Any]:
    own = own_arguments(target)
    found: dict[str, Any] = {}
    for name, argument in own.items():
        words = re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", argument.type))
        if argument.default is None or not PLAIN.issuperset(words):
            continue
        try:
            value = ast.literal_eval(argument.default)
        except ValueError:
            continue  # the default is a name or a call, which a config can't hold
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def own_arguments(target: str) -> dict[str, Argument]:
    """Return the arguments of a class, without those that it passes on to its base class."""
    module, _, name = target.rpartition(".")
    file = module_file(module)
    if file is None:
        return {}
    node = next((n for n in parsed(file).body if getattr(n, "name", None) == name), None)
    init = next((n for n in getattr(node, "body", []) if getattr(n, "name", None) == "__init__"), None)
    arguments = read_arguments(target)
    if not isinstance(init, ast.FunctionDef):
        return arguments
    return {key: argument for key, argument in arguments.items() if key in signature_of(init, {})}


def with_defaults(node: Any) -> Any:
    """Return a copy of plain data in which the default arguments of every part of `mm` are filled in."""
    if isinstance(node, list):
        return [with_defaults(child) for child in node]
    if not isinstance(node, Mapping):
        return node
    full = {key: with_defaults(child) for key, child in node.items()}
    target = full.get("_target_")
    if isinstance(target, str):
        full |= {name: value for name, value in default_arguments(target).items() if name not in full}
    return full
