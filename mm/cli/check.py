"""Run the contract tests on an encoder, fusion or head of your own."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from mm.cli._import_path import add_working_directory
from mm.contracts import Result, check_encoder, check_fusion, check_head, examples
from mm.heads import Head
from mm.messages import near
from mm.targets.classes import ClassTarget

USAGE = "usage: mm check my_pkg.MyEncoder [argument=value ...], from the folder that holds my_pkg"
EMBED_DIM = 32
# What the data would decide; used for the constructor's arguments of these names where they are not given.
FILL: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "inputs": ["text", "vision", "audio"],
    "channels": 3,
    "size": (32, 32),
    "sample_rate": 8000,
    "cardinalities": (0, 5, 0, 7),
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


def find(path: str, base: type = nn.Module) -> type[Any]:
    """The class of a dotted path, from the current folder or what is installed."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"got '{path}', wanted module.Class; {USAGE}")
    add_working_directory()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import inside the module: its traceback says where
        raise ValueError(f"no module '{error.name}' in {Path.cwd()} or installed; {USAGE}") from error
    classes = {k: v for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base)}
    if name not in classes:
        what = "torch.nn.Module" if base is nn.Module else "class"
        own = ", ".join(sorted(k for k, v in classes.items() if v.__module__ == module_name)) or "none"
        raise ValueError(f"no {what} '{name}' in {module_name}; it has {own}{near(name, classes)}")
    return classes[name]


def check(kind: type[nn.Module], given: dict[str, Any]) -> list[Result]:
    """Build with the given arguments and FILL, see which of the three it is, and run its checks.

    Of a head, `target_codec` among the arguments is the codec of its target, ClassTarget by default: a class, or
    {_target_: class, argument: value}.
    """
    head, given = issubclass(kind, Head) or callable(getattr(kind, "loss", None)), dict(given)
    codec: Any = ClassTarget()
    if head and "reads" in given:
        raise ValueError("reads is now target_codec")
    if head and "target_codec" in given:
        chosen = given.pop("target_codec")
        chosen = {"_target_": chosen} if isinstance(chosen, str) else dict(chosen)
        codec = find(str(chosen.pop("_target_", "")), object)(**chosen)
    known = examples(codec).data
    parameters = inspect.signature(kind).parameters
    usual = FILL | ({"classes": list(known.classes), **known.facts} if head else {})
    fill = {k: v for k, v in usual.items() if k in parameters and parameters[k].default is inspect.Parameter.empty}
    kwargs = {**fill, **given}
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        hint = "; a target that is no class needs a codec, such as target_codec=mm.targets.regression.RegressionTarget"
        raise ValueError(
            f"{kind.__name__}: {error}; it takes {', '.join(parameters)}, given as argument=value{hint if head else ''}"
        ) from error
    part = kind(**kwargs)
    width = kwargs.get("embed_dim", EMBED_DIM)
    if head:
        return check_head(part, codec, width)
    if "input" in dir(part):
        return check_encoder(part)
    return check_fusion(part, kwargs.get("inputs", FILL["inputs"]), width)
