"""The words of a command line: overrides of the form `key=value`, and Hydra's own flags."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm.messages import environment_number
from mm.runs.folder import OVERRIDES, read_overrides

CONFIGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")  # flags of Hydra
VALUED = (*CONFIGS, "--cfg", "-c", "--package", "-p", "--experimental-rerun")  # those with a value behind them
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what --info may have behind it


def parse_override(arg: str) -> tuple[str, Any]:
    """Return the key and the value of an override.

    For any other word the key is "", and Hydra reports the error itself.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if arg.startswith("-"):
        return "", None
    try:
        override = OverridesParser.create().parse_override(arg)
    except HydraException:
        return "", None
    return override.get_key_element().lstrip("+~"), override.value()


def can_parse(arg: str) -> bool:
    """Return whether Hydra's grammar accepts an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(arg)
    except HydraException:
        return False
    return True


def strip_prefix(arg: str) -> str:
    """Return `key=value` for `--key=value`, the form that W&B agents write. Hydra's own flags are not changed."""
    own = ("--config-", "--package=", "--info=", "--cfg=", "--shell-completion=", "--experimental-rerun=")
    return arg[2:] if arg.startswith("--") and "=" in arg and not arg.startswith(own) else arg


def quote_override(value: Any) -> str:
    """Quote a string such that Hydra's override grammar accepts any content."""
    return "'" + str(value).replace("'", r"\'") + "'"


def config_flags(argv: Sequence[str]) -> list[str]:
    """Return Hydra's flags that set config folders or names, in the form NAME=VALUE, for child processes."""
    flags = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if name in CONFIGS:
            flags.append(word if equals else f"{name}={next(words, '')}")
    return flags


def flags_first(argv: Sequence[str]) -> list[str]:
    """Move Hydra's flags, with their values, to the front, where Hydra expects them. Users may type them anywhere."""
    first, rest = [], []
    words = deque(argv)
    while words:
        word = words.popleft()
        if word in ("--info", "-i"):  # alone it would take what comes behind it
            first.append(f"--info={words.popleft() if words and words[0] in INFO else INFO[0]}")
        elif word.startswith("-"):
            first += [word, words.popleft()] if word in VALUED and words else [word]
        else:
            rest.append(word)
    return [*first, *rest]


def is_same_run(stored: Sequence[str], typed: Sequence[str]) -> bool:
    """Return whether a restarted process has the same command as the run in its folder.

    A process that was started by a launcher of `mm` may have other flags and other settings of the trainer, because the
    launcher has compared the commands already.

    Args:
        stored: Flags and overrides that are stored in the folder.
        typed: Flags and overrides of this process.
    """
    free = ("resume", "run", "paths.outputs")
    launched = bool(environment_number("MM_RESTART_COUNT"))  # by a launcher, which has compared the rest

    def own(words: Sequence[str]) -> set[str]:
        keys = {word: parse_override(word)[0] for word in words if not (launched and word.startswith("-"))}
        return {w for w, key in keys.items() if key not in free and not (launched and key.startswith("trainer."))}

    return bool(stored) and own(stored) == own(typed)


def load_overrides(argv: list[str]) -> list[str]:
    """Return the stored overrides of a run for a command with `run=NAME resume=true`.

    Args:
        argv: The command line. Overrides whose keys it sets are left out.

    Returns:
        The overrides; empty if the command does not resume a run, is a sweep, or belongs to a child process.

    Raises:
        ValueError: If the run does not exist.
    """
    given = {key: value for arg in argv for key, value in [parse_override(arg)] if key}
    if given.get("resume") is not True or "run" not in given or {"-m", "--multirun"} & set(argv):
        return []
    if any(arg.startswith("hydra.run.dir=") for arg in argv):  # a child process, whose arguments are complete
        return []
    file = Path(str(given.get("paths.outputs", "outputs"))) / str(given["run"]) / OVERRIDES
    if not file.exists():
        raise ValueError(f"resume=true: there is no run in {file.parent}")
    return [o for o in read_overrides(file.parent) if parse_override(o)[0] not in given]
