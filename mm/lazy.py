"""Packages that list their public names and import each on first use."""

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_exports(
    package: str, file: str, modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package that imports its public names on first use.

    The names are those that the package's `__init__.py` imports below `if TYPE_CHECKING:`, so that type checkers and
    the interpreter read one list. Importing the package imports none of them.

    Args:
        package: Name of the package, `__name__`.
        file: Its `__init__.py`, `__file__`.
        modules: Names of its modules and packages that are completed as well.

    Returns:
        Two functions: `__getattr__` imports a public name or a module of the package, and `__dir__` lists the names
        for tab completion.
    """
    known: dict[str, str] = {}

    def exports() -> dict[str, str]:
        if not known:
            known.update(read_exports(Path(file).read_text(encoding="utf-8")))
        return known

    def get_attribute(name: str) -> Any:
        if not name.startswith("__"):
            if name in exports():
                return getattr(import_module(exports()[name]), name)
            try:
                return import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get_attribute, lambda: sorted({*exports(), *modules})


def read_exports(source: str) -> dict[str, str]:
    """Return each name that a module imports below `if TYPE_CHECKING:` and the module that it comes from.

    Args:
        source: Source code of the module.
    """
    import ast  # 10 ms, when a name is first used

    blocks = [node.body for node in ast.parse(source).body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: str(node.module)
        for node in (node for body in blocks for node in body)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
