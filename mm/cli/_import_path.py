"""The user's own modules: found in the working directory, without hiding any installed module."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from mm.messages import near

ROOT = Path(__file__).resolve().parents[2]  # site-packages, or the checkout of an editable installation


def add_working_directory() -> None:
    """Let modules of the working directory be imported, after everything that is installed.

    A `conf.py`, a `datamodules/` or an `mm.py` there hides nothing that `mm` itself imports. In an editable
    installation the checkout is on the path as well; the working directory comes before it, as `mm` imports nothing
    from there but itself, which is imported by now.
    """
    here = str(Path.cwd())
    if here in sys.path:
        return
    editable = (ROOT / "pyproject.toml").is_file() and str(ROOT) in sys.path
    sys.path.insert(sys.path.index(str(ROOT)) if editable else len(sys.path), here)


def find_class(path: str, usage: str, module: bool = False) -> type[Any]:
    """Return the class of a dotted path, from the working directory or what is installed.

    Args:
        path: The dotted path.
        usage: The end of messages.
        module: Whether it has to be a torch module.

    Raises:
        ValueError: If there is no such class; the message names the nearest one.
    """
    from torch import nn

    base = nn.Module if module else object
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"got '{path}', wanted module.Class; {usage}")
    add_working_directory()
    try:
        content = vars(importlib.import_module(module_name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import inside the module: its traceback says where
        raise ValueError(f"no module '{error.name}' in {Path.cwd()} or installed; {usage}") from error
    classes = {k: v for k, v in content.items() if inspect.isclass(v) and issubclass(v, base)}
    if name not in classes:
        kind = "torch.nn.Module" if module else "class"
        own = ", ".join(sorted(k for k, v in classes.items() if v.__module__ == module_name)) or "none"
        raise ValueError(f"no {kind} '{name}' in {module_name}; it has {own}{near(name, classes)}")
    return classes[name]
