"""Two processes of a test that talk to each other over gloo.

They are forks of the test's process: to import torch and Lightning anew takes two new processes ten seconds.
"""

import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

SEED = 67280421310721  # with which every process that is not a fork begins


def run_two(work: Callable[[int, Path], None], folder: Path) -> Path:
    """work(rank, folder) in each; it stands in a module, not in a function. -> the folder"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "spawn" if torch.cuda.is_initialized() else "fork"  # CUDA is of no use in a fork
    torch.multiprocessing.start_processes(_one, (work, port, folder), nprocs=2, start_method=start)
    return folder


def _one(rank: int, work: Callable[[int, Path], None], port: int, folder: Path) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ["NODE_RANK"] = "0"
    work(rank, folder)
    torch.distributed.destroy_process_group()
