"""The adaptor between a verb and its function: parse the words, call the function, show its report."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.messages import near

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance

Show = Callable[[Any, "DictConfig", Path], Any]  # of a report, the config and the run folder


def run_verb(verb: str, argv: list[str], function: str, show: Show) -> None:
    """Compose a verb's config, claim its run folder, call its function, and show what it returns.

    Args:
        verb: The verb, whose root config is conf/VERB.yaml.
        argv: The words behind it.
        function: Module and name of a function of the config, the run folder and the provenance; it is imported once
            the config is composed.
        show: Prints what the function returns, unless that is None, as in other processes than the first one. What it
            returns is the result of the job, which a sweep optimizes.
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
    """Parse the `key=value` words of a verb that has no config.

    Args:
        argv: The words.
        defaults: Key to the value where none is typed.
        usage: The end of messages.
        required: Keys that must be set.

    Raises:
        ValueError: If a key is unknown, or one that must be set is not.
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
    """Split `a,b` or `[a,b]`."""
    return [name for name in value.strip("[]").replace(" ", "").split(",") if name]
