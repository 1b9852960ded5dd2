"""Protocols for `isinstance` that check methods of the class."""

from inspect import isfunction
from typing import Any, Protocol


class Offers(type(Protocol)):
    """Metaclass of protocols whose `isinstance` requires that the protocol's names are methods of the class.

    A user's object may have data attributes such as `compare` or `names`, which do not make it an instance.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        methods = {name for base in cls.__mro__ for name, value in vars(base).items() if isfunction(value)}
        own = [name for name in methods if not name.startswith("_")]
        return super().__instancecheck__(instance) and all(callable(vars_of(instance, name)) for name in own)


def vars_of(instance: Any, name: str) -> Any:
    """Return an attribute of an object's class; None if only the object itself has it, or if it does not exist."""
    return next((vars(base)[name] for base in type(instance).__mro__ if name in vars(base)), None)
