"""Import of a class by its dotted path."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from mm.messages import near


def find_class(path: str, usage: str, module: bool = False) -> type[Any]:
    """Import the class at a dotted path.

    Args:
        path: The dotted path.
        usage: Text for the end of error messages.
        module: Whether the class must be a subclass of `torch.nn.Module`.

    Raises:
        ValueError: If there is no such module or class; the message suggests the most similar name of a class.
    """
    base = nn.Module if module else object
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"got '{path}', wanted module.Class; {usage}")
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
