"""A warning before the training of a model that can't be saved, or not be loaded by another program."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mm.configurable import to_config
from mm.messages import is_first_process
from mm.model import MultimodalModel

log = logging.getLogger("mm")


def warn_of_saving(model: MultimodalModel, has_run: bool) -> None:
    """Warn if a model can't be saved after its training, or if its directory could be loaded by no other program.

    Args:
        model: The model.
        has_run: Whether the training writes a run folder. It then refuses a model that can't be saved by itself.
    """
    note = describe_saving_fault(model, has_run)
    if note and is_first_process():
        log.warning(note)


def describe_saving_fault(model: MultimodalModel, has_run: bool) -> str:
    """Return the sentence of `warn_of_saving`; "" if there is no fault.

    Args:
        model: The model.
        has_run: Whether the training writes a run folder.
    """
    try:
        config = to_config(model)
    except ValueError as error:
        return "" if has_run else f"this model can be trained but not saved: {error}"
    for target in find_targets(config):
        if target.startswith("__main__."):
            name = target.removeprefix("__main__.")
            return (
                f"this model can be saved, but no other program can load it: the class {name} is defined in __main__, "
                "the script or notebook itself; move it to a module, and name its package in allow=[...] of mm.load"
            )
    return ""


def find_targets(config: Any) -> Iterator[str]:
    """Yield every `_target_` of a config of plain data."""
    children = config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ()
    if isinstance(config, Mapping) and isinstance(config.get("_target_"), str):
        yield config["_target_"]
    for child in children:
        yield from find_targets(child)
