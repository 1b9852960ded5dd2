"""Two processes, of which one has seen more rows than the other, or the other none, measure what one would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import run_two
from torchmetrics import Metric

from mm.metrics.average_precision import AveragePrecision
from mm.metrics.entities import Entities
from mm.metrics.regression import MeanAbsoluteError, R2Score, SpearmanCorrCoef
from mm.metrics.rouge import Rouge
from mm.types import IGNORE

TEXTS = ["a dog runs", "two cats", "one", "a cat and a dog", "nothing of it"]
TRUTH = [["a dog ran"], ["two dogs"], ["one", "two"], ["a dog and a cat"], ["all of it"]]
CLASSES = ["O", "B-a", "I-a"]


def rouge(rows: slice) -> Rouge:
    metric = Rouge()
    if TEXTS[rows]:
        metric.update(TEXTS[rows], TRUTH[rows])
    return metric


def entities(rows: slice) -> Entities:
    generator = torch.Generator().manual_seed(0)
    told, truth = (torch.randint(3, (5, 4), generator=generator)[rows] for _ in range(2))
    truth[:, -1] = IGNORE
    metric = Entities(CLASSES)
    if len(told):
        metric.update(told, truth)
    return metric


def boxes(rows: slice) -> AveragePrecision:
    metric = AveragePrecision(["a", "b"])
    for i in range(5)[rows]:
        box = torch.tensor([[10.0 * i, 0, 10 * i + 9, 9 + i]])
        told = {"boxes": box + i, "scores": torch.tensor([0.5 + i / 10]), "labels": torch.tensor([i % 2])}
        metric.update([told], [{"boxes": box, "labels": torch.tensor([i % 2])}])
    return metric


def regression(kind: type) -> Callable[[slice], Metric]:
    def build(rows: slice) -> Metric:
        told = 1.7e9 + torch.tensor([3.0, 1, 2, 9, 5], dtype=torch.float64)
        truth = 1.7e9 + torch.tensor([2.0, 1, 3, 7, 7], dtype=torch.float64)
        metric = kind()
        if len(told[rows]):
            metric.update(told[rows], truth[rows])
        return metric

    return build


METRICS = {"rouge": rouge, "entities": entities, "boxes": boxes}
METRICS |= {kind.__name__: regression(kind) for kind in (MeanAbsoluteError, R2Score, SpearmanCorrCoef)}
PARTS = {"more": (slice(0, 3), slice(3, 5)), "none": (slice(0, 5), slice(5, 5))}


def work(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name, build in METRICS.items():
        for part, rows in PARTS.items():
            found[f"{name}-{part}"] = build(rows[rank]).compute()
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_as_in_one_process(tmp_path: Path) -> None:
    run_two(work, tmp_path)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, build in METRICS.items():
            wanted = build(slice(0, 5)).compute()
            for part in PARTS:
                got = found[f"{name}-{part}"]
                torch.testing.assert_close(got, wanted, msg=f"{name}, {part}")
