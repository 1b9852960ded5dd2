"""Record the constructor arguments of a part, so that the part can say how it was built."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import PurePath
from typing import Any, TypeVar

from mm.renames import current_argument

T = TypeVar("T")
# The attribute that holds (class, arguments) of an object, set past `__setattr__`: torch would register modules.
RECORD = "_constructor"


class Configurable:
    """Mixin that records the arguments of the constructor.

    Each subclass has its `__init__` wrapped once. The outermost constructor is recorded, with the defaults that the
    caller has left out, so that a saved part keeps its meaning when a default changes.

    Example:
        >>> class Scale(Configurable):
        ...     def __init__(self, factor: float = 2.0):
        ...         self.factor = factor
        >>> Scale().get_config()
        {'factor': 2.0}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.__init__, "__wrapped__"):  # its own, or that of a library's class
            cls.__init__ = _recorded(cls.__init__)  # type: ignore[method-assign]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments as plain data.

        A part that was initialised from weights of others, such as a pre-trained folder, overrides this method and
        returns arguments that build the same architecture without them.

        Returns:
            Argument name to plain data. A nested part is a mapping with its class as `_target_`.

        Raises:
            ValueError: If an argument is no plain data and does not say how it was built; the message names it.
        """
        return {name: to_config(value, name) for name, value in recorded_arguments(self).items()}


def configured(cls: Callable[..., T], /, **arguments: Any) -> T:
    """Build an object of any class and record how it was built.

    This is for classes that do not inherit `Configurable`, such as metrics of torchmetrics or augmentations of
    torchvision, where a model that uses them shall be saved.

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
    """Return the constructor arguments of a part as they were given, defaults included.

    Raises:
        ValueError: If the part does not say how it was built.
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
    """Return plain data from which `value` can be built again.

    Args:
        value: A part, plain data, or containers of them.
        where: The name of the argument, for messages.

    Returns:
        Plain data; a part is a mapping of its class, as `_target_`, and its arguments.

    Raises:
        ValueError: If something in it is neither.
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
    """Return the dotted name of the class that a part was built from.

    A class of a private module is named by the public package that exports it.

    Raises:
        ValueError: If the class was defined inside a function, where nothing can find it again.
    """
    cls = vars(part)[RECORD][0]  # sharding replaces the class of an object by a subclass
    if "<locals>" in cls.__qualname__:
        raise ValueError(f"{cls.__qualname__} is defined inside a function; define it at the top of a module")
    public = cls.__module__.split("._")[0]
    exported = getattr(sys.modules.get(public), cls.__qualname__, None) is cls
    return f"{public if exported else cls.__module__}.{cls.__qualname__}"


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor, so that it records its arguments unless a subclass's constructor has done so."""
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
    """Raise a TypeError for an argument that had another name in an earlier version."""
    for base in cls.__mro__:
        for name in arguments:
            current = current_argument(f"{base.__module__}.{base.__qualname__}", name)
            if current is not None:
                raise TypeError(f"{cls.__name__}: the argument `{name}` is now `{current}`")


def _take_no_arguments(self: Any, *args: Any, **kwargs: Any) -> None:
    """Construct an object of a class without a constructor of its own."""
    if args or kwargs:
        raise TypeError(f"{type(self).__name__}() takes no arguments")


def _copied(value: Any) -> Any:
    """Copy the containers of a value, but not the objects in them, so that later changes are not recorded."""
    if type(value) is dict:
        return {key: _copied(child) for key, child in value.items()}
    if type(value) is list:
        return [_copied(child) for child in value]
    return value
