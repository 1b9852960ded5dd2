"""Protocols that `isinstance` decides on by methods of the class."""

from inspect import isfunction
from typing import Any, Protocol


class Offers(type(Protocol)):  # type: ignore[misc]
    """Of protocols that `isinstance` decides on: whoever has such an attribute that is no method does not offer it.

    A part of a user's own may call its data `compare` or `names`: that says nothing about what it can do.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        methods = {name for base in cls.__mro__ for name, value in vars(base).items() if isfunction(value)}
        own = [name for name in methods if not name.startswith("_")]
        return super().__instancecheck__(instance) and all(callable(vars_of(instance, name)) for name in own)


def vars_of(instance: Any, name: str) -> Any:
    """The attribute of an object's class; None where it is the object's own, or there is none."""
    return next((vars(base)[name] for base in type(instance).__mro__ if name in vars(base)), None)
