"""Checks of plain data from a config against type annotations."""

from collections.abc import Mapping, Sequence
from enum import Enum
from inspect import isclass
from os import PathLike
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def fits(value: Any, hint: Any) -> bool:
    """Return whether a config value (a scalar, a list or a mapping) matches a type annotation.

    Args:
        value: The value. A mapping matches the annotation of a class, because it may be the config of an object.
        hint: The type annotation.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return value in args
    if hint in (NoneType, None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    kind = origin if isclass(origin) else hint
    if isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if isclass(kind) and issubclass(kind, Sequence | set | frozenset):
        if not isinstance(value, list):
            return False
        if kind is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(map(fits, value, args))
        return all(fits(x, args[0]) for x in value) if args else True
    if isclass(kind) and kind not in (Any, object, PathLike) and not issubclass(kind, PurePath | Enum):
        return isinstance(value, Mapping)  # the config of an object
    return True


def check_fields(kind: type, data: Mapping[str, Any], where: str) -> None:
    """Check plain data against the fields of the dataclass that is built from it.

    Args:
        kind: The dataclass.
        data: Field name to value; fields may be missing.
        where: Config key of the data, for error messages.

    Raises:
        ValueError: If a key is not a field, or if a value has the wrong type.
    """
    hints = get_type_hints(kind)
    for name, value in data.items():
        if name not in hints:
            raise ValueError(f"{where}: got the key {name!r:.80}, wanted some of {', '.join(hints)}")
        if not fits(value, hints[name]):
            raise ValueError(
                f"{where}.{name}: got {value!r:.80}, wanted {getattr(hints[name], '__name__', hints[name])}"
            )
