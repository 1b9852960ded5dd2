"""The connection between a verb and its function: parse the arguments, call the function, print its report."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.messages import near

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance

Show = Callable[[Any, "DictConfig", Path], Any]  # function of the report, the config and the run folder


def run_verb(verb: str, argv: list[str], function: str, show: Show) -> None:
    """Run a verb: compose its config, claim its run folder, call its function, and print the result.

    Args:
        verb: Name of the verb; its root config is conf/VERB.yaml.
        argv: Command-line arguments after the verb.
        function: Name "module:function" of a function of the config, the run folder and the provenance. It is imported
            after the config is composed.
        show: Function that prints the result of `function`. It is not called if the result is None, as it is in all
            processes except rank 0. It returns the result of the job, which a sweep optimizes.
    """
    from mm.cli._app import launch

    def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> Any:
        report = find_function(function)(cfg, folder, provenance)
        return None if report is None else show(report, cfg, folder)

    launch(verb, argv, job)


def find_function(function: str) -> Callable[..., Any]:
    """Import a function by its module and name, such as `mm.runs.compare:compare`."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def parse_words(
    argv: Sequence[str], defaults: Mapping[str, str], usage: str, required: Sequence[str] = ()
) -> dict[str, str]:
    """Parse the arguments, of the form `key=value`, of a verb that has no config.

    Args:
        argv: Command-line arguments after the verb.
        defaults: Key to its default value.
        usage: Text for the end of error messages.
        required: Keys that must be set.

    Raises:
        ValueError: If a key is unknown, or if a required key is not set.
    """
    given = {key: value for key, _, value in (word.lstrip("-").partition("=") for word in argv)}
    for key in given:
        if key not in defaults:
            raise ValueError(f"nothing reads '{key}'{near(key, defaults)}; {usage}")
    found = {**defaults, **given}
    for key in required:
        if not found[key]:
            raise ValueError(f"{key}= must be set; {usage}")
    return found


def split_names(value: str) -> list[str]:
    """Return the names in a string of the form `a,b` or `[a,b]`."""
    return [name for name in value.strip("[]").replace(" ", "").split(",") if name]
