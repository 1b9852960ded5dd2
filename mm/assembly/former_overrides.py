"""Conversion of the overrides of a run of an earlier version to the current names of options, keys and values."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from mm.assembly.config_choices import compose_chosen, target_at
from mm.assembly.overrides import load_overrides, parse_override
from mm.renames import ARGUMENTS, KEYS, OPTIONS, VALUES, current_key

# The last part of every key that was renamed, or whose values were.
NAMES = {name for former in ARGUMENTS.values() for name in former} | {key.split(".")[-1] for key in KEYS}
NAMES |= {name for values in VALUES.values() for name in values} | {
    key.split(".")[-2] for key in KEYS if key.endswith(".*")
}


def resumed_overrides(verb: str, argv: Sequence[str]) -> list[str]:
    """Return the overrides of the run that a command with `run=NAME resume=true` resumes, with current names.

    The list is empty for a command that resumes nothing; see `load_overrides`.

    Args:
        verb: Name of the root config.
        argv: The command line. Overrides whose keys it sets are left out.
    """
    given = {parse_override(word)[0] for word in argv}
    words = current_overrides(verb, load_overrides(list(argv)))
    return [word for word in words if parse_override(word)[0] not in given]


def current_overrides(verb: str, words: Sequence[str]) -> list[str]:
    """Return overrides with their current names, so that a run of an earlier version can be resumed.

    Args:
        verb: Name of the root config.
        words: The overrides, as stored in the run folder.
    """
    words = [current_option(word) for word in words]
    if not any(NAMES & set(word.partition("=")[0].split(".")) for word in words):
        return words  # nothing is composed
    composed, _ = compose_chosen(verb, words)
    return [current_override(word, composed) for word in words]


def current_option(word: str) -> str:
    """Return an override with the current names of the options that it chooses, such as `callbacks=[default,ema]`."""
    key, equals, value = word.partition("=")
    group = key.lstrip("+").split("@")[0]
    chosen = re.sub(r"[A-Za-z_]\w*", lambda name: OPTIONS.get(f"{group}/{name[0]}", name[0]), value)
    return f"{key}{equals}{chosen}"


def current_override(word: str, composed: Any) -> str:
    """Return an override with the current name of its key, and with its current value if the value was renamed.

    Args:
        word: The override.
        composed: The config of the verb with the options of the run.
    """
    key, equals, value = word.partition("=")
    prefix = key[: len(key) - len(key.lstrip("+~"))]
    name = key[len(prefix) :]
    name = current_key(name, partial(target_at, composed)) or name
    part, _, argument = name.rpartition(".")
    known = VALUES.get(target_at(composed, part) or "", {}).get(argument, {})
    value = next((str(new) for old, new in known.items() if str(old).lower() == value.lower()), value)
    return f"{prefix}{name}{equals}{value}"
