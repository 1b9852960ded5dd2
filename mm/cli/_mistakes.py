"""A user's mistakes, told in one message with the nearest valid name."""

import re
import sys
from collections.abc import Sequence

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from mm.assembly.config_choices import compose_chosen, list_keys
from mm.assembly.hydra_messages import suggest
from mm.messages import near
from mm.renames import current_argument, current_class
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
        return suggest(str(error).strip(), verb, sys.argv[1:])
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


def keys(verb: str, typed: Sequence[str]) -> list[str]:
    """Every key of the verb's config with the options that were chosen, and every group."""
    config, groups = compose_chosen(verb, typed)
    return [*list_keys(config), *groups]
