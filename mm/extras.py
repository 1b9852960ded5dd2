"""Packages that only some uses of `mm` need: imported on first use, with one sentence where they are not installed."""

from importlib import import_module
from types import ModuleType


class MissingPackageError(ImportError, ValueError):
    """A package of an extra that is not installed; for a command it is a user's mistake, with exit status 2."""


def require(module: str, extra: str) -> ModuleType:
    """Import a module of a package that belongs to an extra of `mm`.

    Args:
        module: The module's dotted name, such as `matplotlib.figure`.
        extra: The extra of pyproject.toml that installs its package.

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
            raise  # the package is there, and lacks something itself
        raise MissingPackageError(
            f"this needs the package '{package}', which is not installed; install it with: pip install 'mm[{extra}]'",
            name=package,
        ) from None
