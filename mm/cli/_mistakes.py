"""A user's mistakes, told in one message with the nearest valid name."""

import re
import sys
from collections.abc import Sequence
from functools import partial

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from mm.assembly.config_choices import compose_chosen, list_keys, target_at
from mm.cli._typed import parses
from mm.messages import near
from mm.renames import OPTIONS, current_argument, current_class, current_key
from mm.runs.refusals import explain_refusal


def explain(error: BaseException, verb: str) -> str | None:
    """One message, or None where the fault is ours and a traceback is due."""
    if isinstance(error, InstantiationException):
        cause = error.__cause__
        where = next(iter(re.findall(r"full_key: (\S+)", str(error))), "")
        where = re.sub(r"^datamodule\.readers\.(\w+)", r"model.heads.\1.target_codec", where)  # as it is typed
        if isinstance(cause, ValueError):  # "pool: got 'x'" of several encoders says too little
            argument = re.match(r"[a-z_]+(\.[a-z_]+)*: got ", str(cause))
            named = not where or not argument or str(cause).startswith(where.split(".")[0])
            told = str(cause).removeprefix("target_codec." if where.endswith(".target_codec") else "")
            return told if named else f"{where}.{told}"
        if isinstance(cause, AssertionError):
            return None
        if renamed := re.search(r"the argument `(\w+)` is now `(\w+)`", str(cause)):
            return f"{where}.{renamed[1]} is now {where}.{renamed[2]}"
        called = re.search(r"Error in call to target '([\w.]+)'", str(error))
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause or error))
        if called and unknown and (current := current_argument(called[1], unknown[1])):
            return f"{where}.{unknown[1]} is now {where}.{current}"
        moved = re.search(r"Error locating target '([\w.]+)'", str(error))
        if moved and current_class(moved[1]) != moved[1]:
            return f"{where}: {moved[1]} is now {current_class(moved[1])}"
        lines = [line for line in str(cause or error).split("\n") if line.strip()]
        told = " ".join(lines[:2]) or type(cause or error).__name__
        return f"{where}: {told}{not_its_own(told, where, verb)}" if where else told
    if isinstance(error, HydraException):
        return suggest(str(error).strip(), verb)
    if isinstance(error, OmegaConfBaseException):
        return missing(error)
    return str(error) if isinstance(error, ValueError) else explain_refusal(error)


def not_its_own(told: str, where: str, verb: str) -> str:
    """Why something may have been built with an argument that it does not take, for the end of Python's message.

    where: its key
    """
    if not (found := re.search(r"unexpected keyword argument '(\w+)'|takes no arguments", told)):
        return ""
    typed = {arg.partition("=")[0].lstrip("+") for arg in sys.argv[1:]}
    if not found[1] and any(key.startswith(f"{where}.") for key in typed):
        return ""
    if f"{where}.{found[1]}" in typed:
        own = [key.removeprefix(f"{where}.") for key in keys(verb, sys.argv[1:]) if key.startswith(f"{where}.")]
        return near(str(found[1]), own)
    return "; it was set for another choice of this group, perhaps by the experiment: leave it out with ~KEY"


def missing(error: OmegaConfBaseException) -> str:
    """A key that must be set, or an interpolation that finds nothing."""
    key = error.full_key
    first = str(error).splitlines()[0]
    return f"{key} must be set: {key}=..." if key and "Missing mandatory value" in first else first


def suggest(message: str, verb: str) -> str:
    """Hydra's message, or what it means, with the nearest valid keys or options."""
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
        composed, groups = compose_chosen(verb, sys.argv[1:])
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
        if "=" not in key[1] and key[1] in sys.argv[1:]:
            return f"{key[1]}: wanted KEY=VALUE{close if key[1] not in known else ''}"
        return f"no key '{key[1]}'{close}{f' ({new[1]} adds a new one)' if new and room else ''}"
    if merged := re.search(r"Error merging override (\S+?)=(.*)", message):
        return f"{merged[1]}: got {merged[2]}, where a value of another kind is wanted; lists are typed as {LIST}"
    if again := re.search(r"Multiple values for (\S+)\. To override a value use", message):
        typed = next((arg for arg in sys.argv[1:] if arg.startswith(f"+{again[1]}=")), f"+{again[1]}=...")
        return f"{typed}: '{again[1]}' is there already; choose an option of it without the plus: {typed[1:]}"
    if "To sweep over it, add --multirun" in message or "Ambiguous value for argument" in message:
        typed = next(iter(re.findall(r"Ambiguous value for argument '([^']+)'", message)), "")
        key, _, value = typed.partition("=")
        return (
            f"{typed}: a list is typed in brackets, '{key}=[{value}]', a text with a comma in quotes, "
            f"'{key}=\"{value}\"', and several values for a sweep with -m"
        )
    if "override_grammar" in message:
        typed = unread(sys.argv[1:])
        return f"{typed}: this value can't be read; type texts in quotes, 'KEY=\"a text\"', lists as {LIST}"
    return message


LIST = "KEY=[a,b], mappings as 'KEY={a: 1, b: 2}'"


def unread(typed: Sequence[str]) -> str:
    """The first word of a command line that Hydra's grammar refuses."""
    return next((arg for arg in typed if not arg.startswith("-") and not parses(arg)), "a word")


def keys(verb: str, typed: Sequence[str]) -> list[str]:
    """Every key of the verb's config with the options that were chosen, and every group."""
    config, groups = compose_chosen(verb, typed)
    return [*list_keys(config), *groups]
