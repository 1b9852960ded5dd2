"""What heads share that write texts: the next tokens, their loss, how writing goes on, windows of what is read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.types import IGNORE, Features, side_by_side


class Continued(NamedTuple):
    """What comes next, and what was read, which writing goes on to need."""

    logits: Tensor  # (B, U, V) of each next token, after the begin and the tokens before
    memory: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool


def generation(
    beams: int, length_penalty: float, sample: bool, temperature: float, top_p: float, longest: int
) -> dict[str, Any]:
    """How transformers' `generate` is to write. Errors: ValueError for numbers out of range."""
    if beams < 1 or (sample and beams > 1):
        raise ValueError(f"beams: got {beams}, wanted at least 1, and 1 where sample=true")
    if temperature <= 0 or not 0 < top_p <= 1:
        raise ValueError(f"got temperature={temperature}, top_p={top_p}, wanted a temperature above 0, top_p in 0..1")
    how: dict[str, Any] = {"num_beams": beams, "do_sample": sample, "max_new_tokens": longest - 1}
    how |= {"temperature": temperature, "top_p": top_p, "top_k": 0} if sample else {}
    return how | ({"length_penalty": length_penalty} if beams > 1 else {})


def before(target: Tensor | None, begin: int, end: int, like: Tensor) -> Tensor:
    """What each next token follows: the begin, and the tokens before it; without a target the begin alone. -> (B, U)"""
    first = torch.full((len(like), 1), begin, device=like.device)
    if target is None:
        return first
    return torch.cat([first, target[:, :-1].masked_fill(target[:, :-1] == IGNORE, end)], dim=1)


def next_token_loss(prediction: Continued, target: Tensor, fused: Features, smoothing: float) -> tuple[Tensor, Tensor]:
    """(B, U, V), (B, U) -> sum over the tokens of labelled rows that have something to read, their count"""
    target = target.masked_fill(~fused.mask.any(1, keepdim=True), IGNORE)
    logits = prediction.logits.flatten(0, 1)
    total = F.cross_entropy(logits, target.flatten(), ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    return total, (target != IGNORE).sum()


def merge_read(prediction: Continued, group: Tensor, count: int) -> Continued:
    """What all windows of a row have read, side by side; the next tokens after the first."""
    length = prediction.memory.shape[1]
    memory = side_by_side(prediction.memory, group, count, length, 0.0)
    mask = side_by_side(prediction.mask, group, count, length, 0)
    order = torch.arange(len(group), device=group.device)
    first = torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")
    return Continued(prediction.logits[first], memory, mask)


def compare_texts(said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """-> what is written, and what would be right"""
    return [row["prediction"] for row in said], [[text] for text in truth]
