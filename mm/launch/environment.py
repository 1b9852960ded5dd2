"""Environment variables with which launchers pass its rank to each process of a run."""

import os
import sys
from collections.abc import Mapping, Sequence

from mm.messages import environment_number
from mm.runs.folder import override_key

# Variables that a launcher of processes sets. The next job of a sweep must not inherit them.
RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
# Variables that a launcher which starts all processes of a run itself sets to their number.
BESIDE = ("SLURM_NTASKS", "WORLD_SIZE")


def check_sibling_processes(overrides: Sequence[str]) -> None:
    """Check that the processes of a run that an external launcher has started share a run folder and can be restarted.

    Args:
        overrides: The overrides that the user typed, including those of Hydra.

    Raises:
        ValueError: If several processes were started without a name of the run, or if torchrun may restart processes
            that would connect to processes that no longer exist.
    """
    beside = max(environment_number(name, 1) for name in BESIDE)
    if beside > 1 and not {"run", "hydra.run.dir"} & set(map(override_key, overrides)):
        raise ValueError(f"run=NAME is needed where {beside} processes are started side by side: it is their folder")
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if environment_number("TORCHELASTIC_MAX_RESTARTS") and shares_store:  # github.com/pytorch/pytorch/issues/135712
        raise ValueError(
            "torchrun keeps the addresses of processes that have died, and those that it starts again may call them; "
            "type TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone ..., or leave --max-restarts out"
        )


def read_ranks() -> dict[str, str | None]:
    """Return the environment variables that a launcher of processes sets; None for those that are not set."""
    return {name: os.environ.get(name) for name in RANKS}


def restore_ranks(before: Mapping[str, str | None]) -> None:
    """Destroy the process group of a job, and restore the environment variables of its launcher.

    Args:
        before: The variables before the job, as returned by `read_ranks`.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
