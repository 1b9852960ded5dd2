"""Logits whose truth is drawn from them."""

import torch


def drawn(rows: int, classes: int = 4, seed: int = 0, questions: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and truth that is drawn from what they say: they are calibrated."""
    maker = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, questions, classes, generator=maker)
    truth = logits.softmax(-1).flatten(0, 1).multinomial(1, generator=maker).view(rows, questions)
    return logits, truth
