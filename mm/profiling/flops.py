"""Floating-point operations of a training step, what a device can do at most, and the memory that was used."""

import resource
import sys
import time
from typing import Protocol

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mm.profiling.timeline import Timer
from mm.tensors import pick
from mm.types import Batch

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
COUNTED_ROWS = 8  # FLOPs are those of so many rows, scaled: the kernels that show all of them need more memory


class LossOfBatch(Protocol):
    """A model with its loss and optimizer, as `ReferenceLoop` is one."""

    device: torch.device
    optimizer: torch.optim.Optimizer

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch on the device."""
        ...


def step_flops(loop: LossOfBatch, batch: Batch) -> float:
    """Return the FLOPs of one batch forward and backward: of matrix products and convolutions, as torch counts them.

    Recurrent kernels and Fourier transforms are not counted by torch. Work done twice to save memory is.
    """
    whole = len(batch.row)
    few = pick(batch, slice(COUNTED_ROWS))
    if loop.device.type != "cpu":
        few = move_data_to_device(few, loop.device)
    counter = FlopCounterMode(display=False)
    # Not compiled, and attention in plain products: else the counter sees less
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
        loop.loss(few).backward()
    loop.optimizer.zero_grad()
    return counter.get_total_flops() * whole / len(few.row)


def attainable_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """Return the FLOP/s that a device can do at most in a precision, and where that number is from."""
    dtype = HALF.get(precision, torch.float32)
    known = get_available_flops(device, dtype) if device.type == "cuda" else None
    if known is not None:
        return float(known), f"Lightning's table for {torch.cuda.get_device_name(device)}"
    return matmul_rate(device, dtype), "the best matrix product measured here"


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Return the FLOP/s of the fastest product of square matrices within about that time per size."""
    best = 0.0
    for size in (512, 1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        _ = a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            timer = Timer(device)
            timer.mark("product")
            _ = a @ b
            timer.mark("end")
            best = max(best, 2 * size**3 / timer.splits()[0][1])
    return best


def peak_memory(device: torch.device) -> float:
    """Return the most bytes that CUDA's allocator gave out, else that the process has had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
