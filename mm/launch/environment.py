"""Variables of the environment by which launchers number the processes of a run."""

import os
import sys
from collections.abc import Mapping, Sequence

from mm.messages import environment_number
from mm.runs.folder import override_key

# What a launcher of processes leaves behind, and the next job of a sweep must not see.
RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
# What a launcher that starts a run's processes side by side sets to their number.
BESIDE = ("SLURM_NTASKS", "WORLD_SIZE")


def check_sibling_processes(overrides: Sequence[str]) -> None:
    """Check that processes which were started side by side have a common folder, and may be started again.

    Args:
        overrides: The overrides that were typed, those of Hydra included.

    Raises:
        ValueError: If they have none, or torchrun would start them again with addresses of processes that have died.
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
    """Return the variables of the environment that a launcher of processes sets."""
    return {name: os.environ.get(name) for name in RANKS}


def restore_ranks(before: Mapping[str, str | None]) -> None:
    """End this job's process group and forget its ranks.

    Args:
        before: What `read_ranks` returned before the job.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
