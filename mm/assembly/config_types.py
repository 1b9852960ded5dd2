"""Checks of the types of typed values against the annotations of the constructor arguments that they set."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, isclass, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mm.annotations import fits

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
SUCH = {int: "[64, 64]", float: "[0.5, 0.5]", str: "[text, vision]"}


def check_types(cfg: DictConfig, default: Callable[[], Any], typed: Mapping[str, Any]) -> None:
    """Check the types of typed values against the annotations of the constructor arguments that they set.

    A value without an annotation is compared with the default value of its key.

    Args:
        cfg: The composed config.
        default: Function that composes the config with the chosen options, but without the typed values.
        typed: Dotted key to typed value.

    Raises:
        ValueError: If a value has the wrong type; the message names the key.
    """
    for key, value in typed.items():
        if isinstance(value, str) and "${" in value:
            continue
        hint, example = find_annotation(cfg, key), ""
        if hint is None:
            usual = OmegaConf.select(default(), key, throw_on_missing=False)
            # A number's default does not say whether it has to be whole: who reads it checks that.
            hint = bool if isinstance(usual, bool) else float if isinstance(usual, int | float) else Any
            if hint is Any and OmegaConf.is_list(usual):
                hint, example = list, f"a list, such as {usual}" if usual else ""
            elif hint is Any and OmegaConf.is_dict(usual):
                hint = dict
        if not fits(value, hint):
            raise ValueError(f"{key}: got {as_typed(value)}, wanted {example or describe_type(hint)}")


def find_annotation(cfg: DictConfig, key: str) -> Any:
    """Return the annotation of the constructor argument that a key sets; None if it is unknown."""
    room, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, room, throw_on_missing=False) if room else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str) or target.startswith("hydra_plugins."):
        return None
    try:
        return hint_of(get_object(target), name)
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return None  # the part is built later, and the error message of its constructor names the fault


def hint_of(called: Any, name: str) -> Any:
    """Return the annotation of an argument of a class or function.

    The base classes are searched as well if the constructor passes `**kwargs` on to them. The result is None if the
    argument does not exist or has no annotation.
    """
    owners = [c.__init__ for c in called.__mro__ if "__init__" in vars(c)] if isclass(called) else [called]
    for owner in owners:
        parameters = signature(owner).parameters
        if name in parameters and parameters[name].kind is not Parameter.VAR_KEYWORD:
            return get_type_hints(owner).get(name)
        if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            return None
    return None


def describe_type(hint: Any) -> str:
    """Describe a type annotation in words, such as "a whole number or null"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(describe_type(one) for one in args))
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


def as_typed(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"'{value}'" if isinstance(value, str) else str(value)
