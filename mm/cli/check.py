"""Run the contract tests on an encoder, fusion or head of your own."""

import importlib
import inspect
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from mm.contracts import Result, check_encoder, check_fusion, check_head

USAGE = "usage: mm check my_pkg.MyEncoder [argument=value ...], from the folder that holds my_pkg"
EMBED_DIM = 32
# What the data would decide; used for the constructor's arguments of these names where they are not given.
FILL: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "inputs": ["text", "vision", "audio"],
    "channels": 3,
    "size": (32, 32),
    "sample_rate": 8000,
    "classes": ["zero", "one", "two"],
    "counts": [3, 2, 1],
    "mean": 0.0,
    "std": 1.0,
}


def main(argv: list[str]) -> None:
    """Print one line per check. Errors: ValueError for what can't be built; SystemExit(1) where a check failed."""
    if not argv or argv[0].startswith("-") or "=" in argv[0]:
        raise ValueError(USAGE)
    results = check(find(argv[0]), arguments(argv[1:]))
    for name, message in results:
        print(f"ok      {name}" if message is None else f"FAILED  {name}: {message}")
    if any(message is not None for _, message in results):
        raise SystemExit(1)


def arguments(words: list[str]) -> dict[str, Any]:
    """key=value, where the value is YAML."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ValueError(f"got '{wrong[0]}', wanted argument=value; {USAGE}")
    return OmegaConf.to_container(OmegaConf.from_dotlist(words))  # type: ignore[return-value]


def find(path: str) -> type[nn.Module]:
    """The class of a dotted path, from the current folder or what is installed."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"got '{path}', wanted module.Class; {USAGE}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import inside the module: its traceback says where
        raise ValueError(f"no module '{error.name}' in {Path.cwd()} or installed; {USAGE}") from error
    modules = {k: v for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, nn.Module)}
    if name not in modules:
        near = get_close_matches(name, modules, n=1) or sorted(modules)
        raise ValueError(f"no torch.nn.Module '{name}' in {module_name}; it has {', '.join(near) or 'none'}")
    return modules[name]


def check(kind: type[nn.Module], given: dict[str, Any]) -> list[Result]:
    """Build with the given arguments and FILL, see which of the three it is, and run its checks."""
    parameters = inspect.signature(kind).parameters
    fill = {k: v for k, v in FILL.items() if k in parameters and parameters[k].default is inspect.Parameter.empty}
    kwargs = {**fill, **given}
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__}: {error}; it takes {', '.join(parameters)}, given as argument=value"
        ) from error
    part = kind(**kwargs)
    attributes = dir(part)
    if "input" in attributes:
        return check_encoder(part)
    width = kwargs.get("embed_dim", EMBED_DIM)
    if "kind" in attributes:
        return check_head(part, width, len(kwargs.get("classes", FILL["classes"])))
    return check_fusion(part, kwargs.get("inputs", FILL["inputs"]), width)
