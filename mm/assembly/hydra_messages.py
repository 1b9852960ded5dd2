"""Error messages of Hydra about overrides, in one sentence with the nearest valid name."""

import re
from collections.abc import Sequence
from functools import partial

from mm.assembly.config_choices import compose_chosen, list_keys, target_at
from mm.assembly.overrides import can_parse
from mm.messages import near
from mm.renames import OPTIONS, current_key


def suggest(message: str, verb: str, words: Sequence[str]) -> str:
    """Return an error message of Hydra in other words, with the nearest valid keys or options.

    Args:
        message: The message of Hydra, which is returned unchanged if it is not known.
        verb: Name of the root config.
        words: The flags and overrides of the command, or the overrides of a call from Python.
    """
    if options := re.search(
        r"Could not find '([^']+)'.*?Available options in '[^']*':\n(.*?)\nConfig search path", message, re.S
    ):
        group, _, name = options[1].rpartition("/")
        names = [line.strip() for line in options[2].splitlines() if line.strip()]
        if options[1] in OPTIONS:
            return f"{group}={name} is now {group}={OPTIONS[options[1]]}"
        return (
            f"{group}={name}: there is no such option, only {', '.join(names)}{near(name, names, most=3, cutoff=0.5)}"
        )
    if key := re.search(r"(?:Could not override|override|delete) '([^']+)'", message):
        composed, groups = compose_chosen(verb, words)
        known = [*list_keys(composed), *groups]
        if current := current_key(key[1].split("@")[0], partial(target_at, composed)):
            return f"{key[1]} is now {current}"
        room, _, last = key[1].split("@")[0].rpartition(".")
        below = f"{room}." if room else ""
        deeper = [name for name in known if name.startswith(below) and name.endswith(f".{last}")]  # task.lr
        close = f"; did you mean {' or '.join(f'{name!r}' for name in deeper[:3])}?"
        if not deeper:
            close = near(key[1].split("@")[0], known, most=3, cutoff=0.5)
        new = re.search(r"To append to your config use (\S+)", message)
        if "=" not in key[1] and key[1] in words:
            return f"{key[1]}: wanted KEY=VALUE{close if key[1] not in known else ''}"
        return f"no key '{key[1]}'{close}{f' ({new[1]} adds a new one)' if new and room else ''}"
    if merged := re.search(r"Error merging override (\S+?)=(.*)", message):
        return f"{merged[1]}: got {merged[2]}, where a value of another kind is wanted; lists are typed as {LIST}"
    if again := re.search(r"Multiple values for (\S+)\. To override a value use", message):
        typed = next((arg for arg in words if arg.startswith(f"+{again[1]}=")), f"+{again[1]}=...")
        return f"{typed}: '{again[1]}' is there already; choose an option of it without the plus: {typed[1:]}"
    if "To sweep over it, add --multirun" in message or "Ambiguous value for argument" in message:
        typed = next(iter(re.findall(r"Ambiguous value for argument '([^']+)'", message)), "")
        key, _, value = typed.partition("=")
        return (
            f"{typed}: a list is typed in brackets, '{key}=[{value}]', a text with a comma in quotes, "
            f"'{key}=\"{value}\"', and several values for a sweep with -m"
        )
    if "override_grammar" in message:
        typed = unread(words)
        return f"{typed}: this value can't be read; type texts in quotes, 'KEY=\"a text\"', lists as {LIST}"
    return message


LIST = "KEY=[a,b], mappings as 'KEY={a: 1, b: 2}'"


def unread(typed: Sequence[str]) -> str:
    """Return the first override that Hydra's grammar refuses."""
    return next((arg for arg in typed if not arg.startswith("-") and not can_parse(arg)), "a word")
