"""Reference pages of the Python API, from the docstrings of public modules, read without importing them."""

import ast
import re
from pathlib import Path

from markdown import escape

from mm.assembly.config_keys import PACKAGE

SKIPPED = ("cli", "conf")  # the command line has pages of its own
NO_SIGNATURE = ("NamedTuple", "Protocol", "Enum")


def pages() -> dict[str, str]:
    """Return one page per public room of `mm`, and one for the modules at its top."""
    rooms: dict[str, list[tuple[str, Path]]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        add(rooms, file, file.relative_to(PACKAGE))
    for link in ("datamodules",):  # rglob does not follow links
        for file in sorted((PACKAGE / link).resolve().rglob("*.py")):
            add(rooms, file, Path(link) / file.relative_to((PACKAGE / link).resolve()))
    made = {}
    for room, modules in sorted(rooms.items()):
        parts = [module_part(name, file) for name, file in modules]
        body = "\n\n".join(part for part in parts if part)
        if body:
            made[f"reference/python/{room}.md"] = f"# `{room}`\n\n{body}\n"
    return made


def add(rooms: dict[str, list[tuple[str, Path]]], file: Path, relative: Path) -> None:
    """Add a module to its room, unless it is private or a duplicate."""
    parts = relative.with_suffix("").parts
    if any(part.startswith("_") and part != "__init__" for part in parts) or parts[0] in SKIPPED:
        return
    name = ".".join(("mm", *(part for part in parts if part != "__init__")))
    room = f"mm.{parts[0]}" if len(parts) > 1 else "mm"
    entries = rooms.setdefault(room, [])
    if name not in [other for other, _ in entries]:
        entries.append((name, file))


def module_part(name: str, file: Path) -> str:
    """Return the section of one module; empty where it documents nothing public."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    listed = exported(tree)
    members = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if (listed is None or node.name in listed) and ast.get_docstring(node):
            members.append(class_part(node) if isinstance(node, ast.ClassDef) else function_part(node))
    summary = ast.get_docstring(tree) or ""
    if not members:
        return ""
    head = f"## `{name}`\n\n{prose(summary)}\n\n:::{{py:currentmodule}} {name}\n:::"
    return "\n\n".join([head, *members])


def exported(tree: ast.Module) -> list[str] | None:
    """Return the names in `__all__`; None where a module has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            value = node.value
            return [item.value for item in value.elts] if isinstance(value, ast.List | ast.Tuple) else None  # type: ignore[attr-defined]
    return None


def class_part(node: ast.ClassDef) -> str:
    """Return a class with its constructor's arguments and its public documented methods."""
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    text = ast.get_docstring(node) or ""
    if init is not None and (more := ast.get_docstring(init)):
        text += f"\n\n{more}"
    signature = fields(node) if init is None else f"({arguments(init.args, method=True)})"
    inner = [prose(text)]
    seen: set[str] = set()
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
            if method.name not in seen:
                inner.append(function_part(method, method=True))
            seen.add(method.name)
    return directive("py:class", f"{node.name}{signature}", "\n\n".join(inner), ":::::")


def fields(node: ast.ClassDef) -> str:
    """Return the fields of a named tuple or data class as a signature."""
    found = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    bases = " ".join(ast.unparse(base) for base in node.bases)
    decorated = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    if not found or ("Protocol" in bases) or not ("NamedTuple" in bases or decorated):
        return ""
    shown = [f"{ast.unparse(n.target)}: {ast.unparse(n.annotation)}" + default_of(n.value) for n in found]
    return f"({', '.join(shown)})"


def default_of(value: ast.expr | None) -> str:
    """Return ` = VALUE` for a default; of a long or computed one, only that there is one."""
    if value is None:
        return ""
    text = ast.unparse(value)
    return f" = {text}" if isinstance(value, ast.Constant | ast.UnaryOp | ast.Tuple | ast.Name) else " = ..."


def function_part(node: ast.FunctionDef, method: bool = False) -> str:
    """Return a function or method."""
    decorators = [ast.unparse(d) for d in node.decorator_list]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = prose(ast.get_docstring(node) or "")
    if method and ("property" in decorators or "cached_property" in decorators):
        kind = f"\n:type: {ast.unparse(node.returns)}" if node.returns else ""
        return directive("py:property", node.name + kind, text, "::::")
    static = method and "staticmethod" in decorators
    signature = f"{node.name}({arguments(node.args, method and not static)}){returned}"
    return directive("py:method" if method else "py:function", signature, text, "::::")


def arguments(args: ast.arguments, method: bool) -> str:
    """Return a signature's arguments, without `self` of a method."""
    shown = ast.unparse(args)
    return re.sub(r"^(self|cls)(, )?", "", shown) if method else shown


def directive(kind: str, argument: str, body: str, fence: str) -> str:
    """Return a directive with a body of Markdown."""
    first, _, options = argument.partition("\n")
    head = f"{fence}{{{kind}}} {first}" + (f"\n{options}" if options else "")
    return f"{head}\n\n{body}\n{fence}"


def prose(docstring: str) -> str:
    """Return a docstring in Google's style as Markdown: sections become field lists, examples code."""
    blocks: list[str] = []
    lines = docstring.splitlines()
    section = re.compile(r"^(Args|Arguments|Attributes|Returns|Yields|Raises|Errors|Example|Examples|Note|Shape):$")
    position = 0
    while position < len(lines):
        match = section.match(lines[position])
        if not match:
            start = position
            while position < len(lines) and not section.match(lines[position]):
                position += 1
            blocks.append(paragraphs(lines[start:position]))
            continue
        start = position = position + 1
        while position < len(lines) and (not lines[position].strip() or lines[position].startswith(" ")):
            position += 1
        blocks.append(render_section(match[1], lines[start:position]))
    return "\n\n".join(block for block in blocks if block)


def paragraphs(lines: list[str]) -> str:
    """Return a docstring as plain paragraphs; indented blocks become code blocks."""
    made = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        if not block.strip():
            continue
        if all(line.startswith((" ", ">>>")) for line in block.splitlines()):
            made.append(f"```python\n{dedent(block)}\n```" if ">>>" in block else f"```text\n{dedent(block)}\n```")
        else:
            made.append("\n".join(escape(line.strip()) for line in block.splitlines()))
    return "\n\n".join(made)


def dedent(block: str) -> str:
    """Return an indented block without its indentation."""
    import textwrap

    return textwrap.dedent(block).strip("\n")


def render_section(kind: str, lines: list[str]) -> str:
    """Return a section of a docstring as a field list."""
    body = dedent("\n".join(lines))
    if kind in ("Example", "Examples"):
        return f"```python\n{body}\n```"
    if kind in ("Returns", "Yields", "Note", "Shape"):
        return f"**{kind}:** " + escape(" ".join(body.split()))
    made = []
    for entry in re.split(r"\n(?=\S)", body):
        name, colon, text = entry.partition(":")
        if not colon:
            made.append(f"- {escape(' '.join(entry.split()))}")
        else:
            made.append(f"- `{name.strip()}`: {escape(' '.join(text.split()))}")
    title = {"Args": "Arguments", "Errors": "Raises"}.get(kind, kind)
    return f"**{title}:**\n\n" + "\n".join(made)
