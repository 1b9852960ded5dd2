"""Floating-point operations (FLOPs) of a training step, the attainable FLOP/s of a device, and the peak memory."""

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
COUNTED_ROWS = 8  # rows whose FLOPs are counted and extrapolated: the kernels that can be counted need more memory


class LossOfBatch(Protocol):
    """A model with its loss and optimizer, such as `ReferenceLoop`."""

    device: torch.device
    optimizer: torch.optim.Optimizer

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch that is on the device."""
        ...


def step_flops(loop: LossOfBatch, batch: Batch) -> float:
    """Return the FLOPs of a forward and backward pass on a batch.

    Matrix products and convolutions are counted, as torch counts them; recurrent kernels and Fourier transforms are
    not. Activations that are computed twice to save memory count twice.
    """
    whole = len(batch.row)
    few = pick(batch, slice(COUNTED_ROWS))
    if loop.device.type != "cpu":
        few = move_data_to_device(few, loop.device)
    counter = FlopCounterMode(display=False)
    # The counter does not see the operations of compiled code and of fused attention kernels.
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
        loop.loss(few).backward()
    loop.optimizer.zero_grad()
    return counter.get_total_flops() * whole / len(few.row)


def attainable_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """Return the maximum FLOP/s of a device in a precision, and the origin of that number.

    Args:
        device: The device.
        precision: Precision of the Trainer, such as "bf16-mixed".

    Returns:
        FLOP/s from Lightning's table of GPUs, or else those of the fastest matrix product measured on this device.
    """
    dtype = HALF.get(precision, torch.float32)
    known = get_available_flops(device, dtype) if device.type == "cuda" else None
    if known is not None:
        return float(known), f"Lightning's table for {torch.cuda.get_device_name(device)}"
    return matmul_rate(device, dtype), "the best matrix product measured here"


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Return the FLOP/s of the fastest measured product of two square matrices.

    Args:
        device: The device.
        dtype: Type of the matrices.
        seconds: Approximate duration of the measurement for each matrix size.
    """
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
    """Return the peak memory in bytes: on CUDA that of the allocator for the device, otherwise that of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
