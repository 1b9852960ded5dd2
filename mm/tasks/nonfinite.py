"""Handling of losses and gradients that are not finite: save the batch, find the module, and stop or skip the step."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mm.types import Batch, Features

POLICIES = ("raise", "skip")


class NonFinite:
    """Save a batch whose loss or gradient is not finite, with the weights, and stop the run or skip the step.

    Args:
        policy: "raise" stops the run with a ValueError; "skip" skips the step, which changes no weight, and counts it.
        folder: Folder for such batches, which `mm diagnose` reads; None: they are not saved.
        keep: Maximum number of saved batches.

    Raises:
        ValueError: If the policy is unknown.
    """

    def __init__(self, policy: str = "raise", folder: str | None = None, keep: int = 3):
        if policy not in POLICIES:
            raise ValueError(f"task.nonfinite.policy: got '{policy}', wanted one of {', '.join(POLICIES)}")
        self.policy = policy
        self.folder = None if folder is None else Path(folder)
        self.keep = keep
        self.skipped = 0  # steps

    def handle(
        self,
        model: nn.Module,
        batch: Batch,
        step: int,
        quantity: str,
        rows: str,
        again: Callable[[], Any],
        process: int | None = None,
    ) -> str:
        """Save the batch and return a message about it.

        Args:
            model: The model.
            batch: The batch.
            step: Optimizer step.
            quantity: "the loss" or "the gradient".
            rows: IDs of the rows of the batch, as returned by `listed`.
            again: Function that computes the losses again.
            process: Rank of this process if several processes met such a batch.

        Raises:
            ValueError: If the policy is "raise".
        """
        place = first_nonfinite(model, again)
        told = f"{quantity} of step {step} is not finite; the rows of its batch: {rows}; "
        told += f"first in {place}" if place else "every module's output is finite, so it is the gradient alone"
        if self.folder is not None and self.skipped <= self.keep:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"step-{step:09d}{'' if process is None else f'-process-{process}'}.pt"
            weights = model.state_dict()
            if any(isinstance(x, DTensor) for x in weights.values()):
                weights = None  # shared out between processes; the checkpoints have them
            torch.save({"what": quantity, "batch": pack(batch), "weights": weights}, path)
            run = os.path.relpath(self.folder.parent)
            told += f"; the batch is kept in {path}; replay it with: mm diagnose run={run}"
        if self.policy == "raise":
            raise ValueError(f"{told}. Lower task.optimizer.lr, mend the rows, or set task.nonfinite.policy=skip")
        return told


def listed(names: Sequence[str]) -> str:
    """Join names, at most the first 20."""
    return ", ".join(names[:20]) + ", ..." * (len(names) > 20)


def first_nonfinite(model: nn.Module, compute: Callable[[], Any]) -> str:
    """Return the first module, in the order of computation, whose output is not finite; "" if all outputs are finite.

    Args:
        model: The model.
        compute: Function that runs the model.
    """
    found: list[str] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if not found and not all_finite(output):
            broken = [n for n, p in module.named_parameters(recurse=False) if not p.isfinite().all()]
            also = f", whose {' and '.join(broken)} is not finite" if broken else ""
            found.append(f"model.{names[module]} ({type(module).__name__}){also}")

    names = {module: name for name, module in model.named_modules() if name}
    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            compute()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def pack(batch: Batch) -> dict[str, Any]:
    """Convert a batch to plain data, which can be loaded without pickle."""
    inputs = {n: x._asdict() if isinstance(x, Features) else x for n, x in batch.inputs.items()}
    return batch._asdict() | {"inputs": inputs}


def unpack(data: Mapping[str, Any]) -> Batch:
    """Convert the result of `pack` back to a batch."""
    inputs = {n: Features(**x) if isinstance(x, dict) else x for n, x in data["inputs"].items()}
    return Batch(**{**data, "inputs": inputs})


def all_finite(data: Any) -> bool:
    """Return whether every float tensor in nested tuples, lists and dictionaries is finite."""
    if isinstance(data, Tensor):
        return not data.is_floating_point() or bool(data.isfinite().all())
    if isinstance(data, dict):
        return all(all_finite(x) for x in data.values())
    return all(all_finite(x) for x in data) if isinstance(data, tuple | list) else True


def gather_text(text: str, processes: int) -> str:
    """Return the texts of all processes, joined by commas; empty texts are left out.

    Args:
        text: The text of this process.
        processes: Number of processes, all of which call this function.
    """
    texts: list[str] = [""] * processes
    torch.distributed.all_gather_object(texts, text)
    return ", ".join(text for text in texts if text)
