"""What a user types as KEY=VALUE: values that Hydra's grammar refuses, names of runs, and types of values."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mm.annotations import fits

# Keys whose values are texts, also where they look like a number, a truth value or nothing: run=1e3 is called 1e3.
TEXTS = ("run", "checkpoint", "out", "datamodule.path")
TEXT_ROOMS = ("paths.", "datamodule.columns.")
STRUCTURE = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\[\]{},:])""")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
SUCH = {int: "[64, 64]", float: "[0.5, 0.5]", str: "[text, vision]"}


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
    if parses(arg):
        return arg
    if value[0] in "[{" or (sweep and "," in value):
        again = f"{key}={''.join(map(mended, STRUCTURE.split(value)))}"
    else:
        again = f"{key}={quoted(value)}"
    return again if parses(again) else arg


def mended(part: str) -> str:
    """A piece of a list or a mapping between two structural characters, in quotes where Hydra can't read it bare."""
    bare = part.strip()
    if not bare or STRUCTURE.fullmatch(bare) or parses(f"x={bare}"):
        return part
    return part.replace(bare, quoted(bare))


def quoted(value: str) -> str:
    """A text as one of Hydra's quoted strings."""
    escaped = re.sub(r"(\\*)(\"|$)", lambda m: m[1] * 2 + (f"\\{m[2]}" if m[2] else ""), value)
    return f'"{escaped}"'


def parses(arg: str) -> bool:
    """Whether Hydra's grammar accepts an override."""
    with suppress(HydraException):
        OverridesParser.create().parse_override(arg)
        return True
    return False


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


def check_types(cfg: DictConfig, default: Callable[[], Any], typed: Mapping[str, Any]) -> None:
    """Compare the types of typed values with the annotations of the classes that they are arguments of.

    Args:
        cfg: The composed config.
        default: Composes the config with the chosen options, but without the typed values.
        typed: Dotted key to typed value.

    Raises:
        ValueError: If a value is of another type; the message names the key.
    """
    for key, value in typed.items():
        if isinstance(value, str) and "${" in value:
            continue
        hint, example = annotation(cfg, key), ""
        if hint is None:
            usual = OmegaConf.select(default(), key, throw_on_missing=False)
            # A number's default does not say whether it has to be whole: who reads it checks that.
            hint = bool if isinstance(usual, bool) else float if isinstance(usual, int | float) else Any
            if hint is Any and OmegaConf.is_list(usual):
                hint, example = list, f"a list, such as {usual}" if usual else ""
            elif hint is Any and OmegaConf.is_dict(usual):
                hint = dict
        if not fits(value, hint):
            raise ValueError(f"{key}: got {shown(value)}, wanted {example or wanted(hint)}")


def annotation(cfg: DictConfig, key: str) -> Any:
    """The annotation of the argument that a key sets; None where nothing is known of it."""
    room, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, room, throw_on_missing=False) if room else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str) or target.startswith("hydra_plugins."):
        return None
    try:
        return hint_of(get_object(target), name)
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return None  # it is built later, where the message says what is wrong with it


def hint_of(called: Any, name: str) -> Any:
    """The annotation of an argument of a class, or of its parents where it passes keywords on to them, or a function.

    None where there is none, or it is a type of which a config can't hold a value.
    """
    owners = [c.__init__ for c in called.__mro__ if "__init__" in vars(c)] if isclass(called) else [called]
    for owner in owners:
        parameters = signature(owner).parameters
        if name in parameters and parameters[name].kind is not Parameter.VAR_KEYWORD:
            return get_type_hints(owner).get(name)
        if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            return None
    return None


def wanted(hint: Any) -> str:
    """An annotation in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(wanted(one) for one in args))
    if origin is Literal:
        return " or ".join(map(str, args))
    if hint in WORDS:
        return WORDS[hint]
    kind = origin if isclass(origin) else hint
    if isclass(kind) and issubclass(kind, Mapping):
        return "a mapping, such as {name: value}"
    if isclass(kind) and issubclass(kind, Sequence | set | frozenset):
        several = f" of {len(args)}" if kind is tuple and args and args[-1] is not Ellipsis else ""
        return f"a list{several}, such as {SUCH.get(args[0] if args else str, '[a, b]')}"
    return f"a {getattr(kind, '__name__', kind)}"


def shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"'{value}'" if isinstance(value, str) else str(value)
