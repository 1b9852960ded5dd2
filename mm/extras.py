"""Optional packages, which are imported on first use, with a helpful error if they are not installed."""

from importlib import import_module
from types import ModuleType


class MissingPackageError(ImportError, ValueError):
    """An optional package is not installed. On the command line this is a user error, with exit status 2."""


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Dotted name of the module, such as `matplotlib.figure`.
        extra: Extra of pyproject.toml that installs the package.

    Returns:
        The module.

    Raises:
        MissingPackageError: If the package is not installed; the message names the command that installs it.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the package is installed, but one of its own imports fails
        raise MissingPackageError(
            f"this needs the package '{package}', which is not installed; install it with: pip install 'mm[{extra}]'",
            name=package,
        ) from None
