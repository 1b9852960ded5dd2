"""Hydra's state of the job at work, read in one place."""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mm.assembly.named_keys import find_named_keys
from mm.assembly.provenance import Provenance


def read_provenance(verb: str, flags: Sequence[str]) -> Provenance:
    """Return the command of the current job.

    Args:
        verb: The verb.
        flags: Hydra's flags that name config folders.
    """
    state: Any = HydraConfig.get()
    return Provenance(
        verb,
        tuple(flags),
        tuple(state.overrides.task),
        tuple(find_named_keys(state)),
        dict(state.runtime.choices),
        state.job.num if state.mode == RunMode.MULTIRUN else None,
    )
