"""What a user types as KEY=VALUE: values that Hydra's grammar refuses, names of runs, and types of values."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mm.assembly.overrides import can_parse

# Keys whose values are texts, also where they look like a number, a truth value or nothing: run=1e3 is called 1e3.
TEXTS = ("run", "checkpoint", "out", "datamodule.path")
TEXT_ROOMS = ("paths.", "datamodule.columns.")
STRUCTURE = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\[\]{},:])""")


def as_meant(arg: str, sweep: bool = False) -> str:
    """Quote the parts of an override's value that Hydra's grammar refuses, or would read as something else.

    Args:
        arg: A word of the command line.
        sweep: Whether commas separate the values of a sweep.

    Returns:
        The same word, or one that Hydra reads as the text that was typed: names with accents, parentheses, brackets
        or blanks, and names of runs that look like numbers.
    """
    key, equals, value = arg.partition("=")
    name = key.lstrip("+~")
    if arg.startswith("-") or not equals or not value or "${" in value:
        return arg
    text = name in TEXTS or name.startswith(TEXT_ROOMS)
    if text and (value != "null" or name == "run") and value[0] not in "[{\"'" and not (sweep and "," in value):
        if name.startswith("datamodule.columns.") and value in ("true", "false"):  # a switch, not a column
            return arg
        return arg if reads_as(value) == value else f"{key}={quoted(value)}"
    if can_parse(arg):
        return arg
    if value[0] in "[{" or (sweep and "," in value):
        again = f"{key}={''.join(map(mended, STRUCTURE.split(value)))}"
    else:
        again = f"{key}={quoted(value)}"
    return again if can_parse(again) else arg


def mended(part: str) -> str:
    """Return an element of a list or mapping in quotes if Hydra can't parse it without them."""
    bare = part.strip()
    if not bare or STRUCTURE.fullmatch(bare) or can_parse(f"x={bare}"):
        return part
    return part.replace(bare, quoted(bare))


def quoted(value: str) -> str:
    """Return a text as a quoted string of Hydra."""
    escaped = re.sub(r"(\\*)(\"|$)", lambda m: m[1] * 2 + (f"\\{m[2]}" if m[2] else ""), value)
    return f'"{escaped}"'


def reads_as(value: str) -> Any:
    """What Hydra reads a bare value as; None where it refuses it, or reads a sweep."""
    with suppress(HydraException):
        override = OverridesParser.create().parse_override(f"x={value}")
        return None if override.is_sweep_override() else override.value()
    return None


def check_run(name: Any) -> None:
    """Check the name of a run.

    Raises:
        ValueError: If it is no name of a folder below `paths.outputs`.
    """
    path = Path(name) if isinstance(name, str) else None
    if path is None or not name.strip() or not name.isprintable():
        raise ValueError(f"run: got {name!r}, wanted a name, such as run=first; the run folder is outputs/first")
    if path.is_absolute() or ".." in path.parts or name.startswith("~"):
        raise ValueError(
            f"run: got '{name}', wanted a name below paths.outputs; for another place set paths.outputs={path.parent} "
            f"run={path.name}"
        )
