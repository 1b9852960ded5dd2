"""Recording of constructor arguments, so that a part of a model can be saved as its config and rebuilt."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import PurePath
from typing import Any, TypeVar

from mm.renames import current_argument

T = TypeVar("T")
# Attribute with (class, arguments) of an object. It bypasses `__setattr__`, which would register nested modules.
RECORD = "_constructor"


class Configurable:
    """Mixin that records the arguments of the constructor.

    The `__init__` of each subclass is wrapped once. The arguments of the outermost constructor are recorded, including
    the defaults of omitted arguments, so that a saved part keeps its meaning when a default changes.

    Example:
        >>> class Scale(Configurable):
        ...     def __init__(self, factor: float = 2.0):
        ...         self.factor = factor
        >>> Scale().get_config()
        {'factor': 2.0}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.__init__, "__wrapped__"):  # its own constructor, or one inherited from a library
            cls.__init__ = _recorded(cls.__init__)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments as plain data.

        A part that is initialised from external weights, such as a pretrained model, overrides this method and returns
        arguments that build the same architecture without these weights.

        Returns:
            Argument name to plain data. A nested part is a mapping with its class as `_target_`.

        Raises:
            ValueError: If an argument is neither plain data nor an object with recorded arguments; the message names
                it.
        """
        return {name: to_config(value, name) for name, value in recorded_arguments(self).items()}


def configured(cls: Callable[..., T], /, **arguments: Any) -> T:
    """Build an object of any class and record its constructor arguments.

    Use this function for objects of classes that do not inherit from `Configurable`, such as metrics of torchmetrics or
    augmentations of torchvision, if a model that uses them is to be saved.

    Args:
        cls: The class.
        **arguments: Its constructor arguments.

    Returns:
        The object.
    """
    built = cls(**arguments)
    if not isinstance(built, Configurable) and hasattr(built, "__dict__"):
        vars(built)[RECORD] = (cls, _copied(arguments))
    return built


def recorded_arguments(part: Any) -> dict[str, Any]:
    """Return the recorded constructor arguments of a part, including defaults.

    Raises:
        ValueError: If the arguments were not recorded.
    """
    record = getattr(part, "__dict__", {}).get(RECORD)
    if record is None:
        name = type(part).__name__
        raise ValueError(
            f"got an object of {name}, which does not say how it was built; let the class inherit mm.Configurable, or "
            f"build the object with mm.configured({name}, ...)"
        )
    return dict(record[1])


def to_config(value: Any, where: str = "") -> Any:
    """Convert a value to plain data from which it can be rebuilt.

    Args:
        value: A part, plain data, or a container of them.
        where: Name of the argument, for error messages.

    Returns:
        Plain data. A part is a mapping with its class as `_target_` and its arguments.

    Raises:
        ValueError: If it contains an object whose constructor arguments were not recorded.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Configurable):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): to_config(child, f"{where}.{key}") for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [to_config(child, f"{where}.{index}") for index, child in enumerate(value)]
    try:
        config = (
            type(value).get_config(value) if isinstance(value, Configurable) else to_config(recorded_arguments(value))
        )
        return {"_target_": target_of(value), **config}
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def target_of(part: Any) -> str:
    """Return the dotted name of the class from which a part was built.

    A class of a private module is named after the public package that exports it.

    Raises:
        ValueError: If the class was defined inside a function and therefore can't be imported.
    """
    cls = vars(part)[RECORD][0]  # not type(part): sharding replaces the class of an object by a subclass
    if "<locals>" in cls.__qualname__:
        raise ValueError(f"{cls.__qualname__} is defined inside a function; define it at the top of a module")
    public = cls.__module__.split("._")[0]
    exported = getattr(sys.modules.get(public), cls.__qualname__, None) is cls
    return f"{public if exported else cls.__module__}.{cls.__qualname__}"


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that it records its arguments, unless the constructor of a subclass has recorded them."""
    signature = inspect.signature(init)
    if init is object.__init__:  # the signature of C code accepts anything
        init, signature = _take_no_arguments, inspect.signature(lambda self: None)
    variadic = {
        kind: next((name for name, p in signature.parameters.items() if p.kind == kind), None)
        for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if RECORD not in vars(self):
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                check_former_arguments(type(self), kwargs)
                init(self, *args, **kwargs)  # raises the error that names the class
                raise
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            arguments.pop(next(iter(signature.parameters)))
            arguments.update(arguments.pop(variadic[inspect.Parameter.VAR_KEYWORD] or "", {}))
            if name := variadic[inspect.Parameter.VAR_POSITIONAL]:
                assert not arguments.pop(name), f"{type(self).__name__}: arguments are recorded by their names"
            vars(self)[RECORD] = (type(self), _copied(arguments))
        init(self, *args, **kwargs)

    return wrapped


def check_former_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that had another name in an earlier version.

    Args:
        cls: The class.
        arguments: The arguments by name.
    """
    for base in cls.__mro__:
        for name in arguments:
            current = current_argument(f"{base.__module__}.{base.__qualname__}", name)
            if current is not None:
                raise TypeError(f"{cls.__name__}: the argument `{name}` is now `{current}`")


def _take_no_arguments(self: Any, *args: Any, **kwargs: Any) -> None:
    """Constructor of a class without its own constructor, which raises TypeError if it is given arguments."""
    if args or kwargs:
        raise TypeError(f"{type(self).__name__}() takes no arguments")


def _copied(value: Any) -> Any:
    """Copy nested dictionaries and lists, but not the objects in them, so that later changes are not recorded."""
    if type(value) is dict:
        return {key: _copied(child) for key, child in value.items()}
    if type(value) is list:
        return [_copied(child) for child in value]
    return value
