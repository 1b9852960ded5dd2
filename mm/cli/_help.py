"""The help of a verb: keys of the chosen parts with value, type and description; torch is not imported."""

import ast
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mm.assembly.config_keys import CONF, read_title, type_of_value
from mm.assembly.config_sections import Groups, Section, compose_sections, list_sections
from mm.assembly.signatures import read_arguments

HELP = ("-h", "--help")
WIDTH = 120  # columns at most
VALUE = 40  # columns up to which a value is shown in full
CONFIG_DIR = ("--config-dir", "-cd")


def help_text(verb: str, argv: Sequence[str]) -> str:
    """Return the help of a verb.

    Args:
        verb: The verb.
        argv: The words behind it; options and keys that are typed are shown as chosen.

    Returns:
        The text. A verb without a config has its module's docstring.
    """
    if not (CONF / f"{verb}.yaml").exists():
        source = (Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8")
        return ast.get_docstring(ast.parse(source)) or ""
    from mm.cli._typed import as_meant

    overrides, folders = split_words([word for word in argv if word not in HELP])
    cfg, defaults, groups = compose_sections(verb, [as_meant(word) for word in overrides], folders)
    roots = [CONF, *folders]
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    first, *rest = list_sections(verb, defaults, roots)
    lines = [read_title(CONF / f"{verb}.yaml"), "", f"Usage: mm {verb} [GROUP=OPTION ...] [KEY=VALUE ...]", ""]
    if groups:
        lines += ["Groups, with the option that is chosen and the others:", *group_lines(groups, width), ""]
        other = example(groups)
        lines += [f"The keys of the chosen options follow. Those of another: mm {verb} {other} --help", ""]
    for section in (first, *rest):
        rows = list(key_rows(section, cfg))
        if rows:
            title = " ".join(section.title.split())
            heading = f"{section.option}: {title}" if title else section.option
            lines += [*textwrap.wrap(heading, width), *layout(rows, width), ""]
    lines.append(
        f"A value of ??? comes from the data, or must be typed. mm {verb} --cfg job prints the config as YAML."
    )
    return "\n".join(lines)


def split_words(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the overrides among the words of a command, and the folders of configs that flags name."""
    overrides, folders = [], []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in CONFIG_DIR:
            folders.append(Path(value if equals else next(rest, ".")).absolute())
        elif not word.startswith("-"):
            overrides.append(word)
    return overrides, folders


def group_lines(groups: Groups, width: int) -> Iterator[str]:
    """Yield a line per group: the chosen option, then the others."""
    column = max(len(f"{group}={option}") for group, (option, _) in groups.items()) + 4
    for group, (option, options) in groups.items():
        shown = option if option is not None else "null"
        others = " ".join(name for name in options if name not in (option, "base", "sources"))
        head = f"  {group}={shown}"
        yield from wrapped(head, others, column, width)


def example(groups: Groups) -> str:
    """Return another option of a group, as it is typed."""
    for group in ("datamodule", *groups):
        option, options = groups.get(group, (None, []))
        others = [name for name in options if name not in (option, "base", "sources")]
        if others:
            return f"{group}={'manifest' if 'manifest' in others else others[0]}"
    return "GROUP=OPTION"


def key_rows(section: Section, cfg: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield `key=value` and the type with the description of each key of a section."""
    for name, key in section.keys.items():
        room, _, last = name.rpartition(".")
        node = select(cfg, room)
        if not isinstance(node, dict) or last not in node:
            continue  # deleted, or replaced by another option
        target = node.get("_target_")
        known = read_arguments(target).get(last) if isinstance(target, str) else None
        value = node[last]
        kind = key.type or (known.type if known else "") or type_of_value(value)
        note = key.description or (known.description if known else "")
        mapping = key.type == "mapping" and not key.default
        head = name if mapping else f"{name}={as_typed(value)}"
        yield head, " ".join(part for part in (f"[{kind}]" if kind and not mapping else "", note) if part)


def select(node: Any, dotted: str) -> Any:
    """Return the part of nested mappings under a dotted key; None where there is none."""
    for part in dotted.split(".") if dotted else ():
        node = node.get(part) if isinstance(node, dict) else None
    return node


def as_typed(value: Any) -> str:
    """Return a value as it is typed, shortened where it is long."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {as_typed(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(as_typed(item) for item in value) + "]"
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = str(value)
    return text if len(text) <= VALUE else f"{text[: VALUE - 4]} ..."


def layout(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield rows in two columns, the second wrapped."""
    column = min(max(len(head) for head, _ in rows) + 4, 52)
    for head, note in rows:
        yield from wrapped(f"  {head}", note, column, width)


def wrapped(head: str, note: str, column: int, width: int) -> Iterator[str]:
    """Yield a head and its note, the note from a column on."""
    if not note:
        yield head
        return
    lines = textwrap.wrap(note, max(width - column, 30))
    if len(head) + 2 > column:
        yield head
    else:
        yield f"{head:{column}}{lines.pop(0)}"
    for line in lines:
        yield " " * column + line
