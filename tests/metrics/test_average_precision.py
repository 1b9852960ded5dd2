"""Beside pycocotools itself, fed by files as COCO has them, and by hand."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mm.metrics.average_precision import AveragePrecision

CLASSES = ["a", "b", "never"]


def draw(seed: int) -> tuple[list[dict], list[dict]]:
    """Six pictures; most boxes are found about where they are, some are missed, some are nothing."""
    generator = torch.Generator().manual_seed(seed)
    told, truth = [], []
    for _ in range(6):
        count = int(torch.randint(0, 5, (1,), generator=generator))
        start = torch.rand(count, 2, generator=generator) * 60
        boxes = torch.cat([start, start + 10 + torch.rand(count, 2, generator=generator) * 30], dim=1)
        labels = torch.randint(0, 2, (count,), generator=generator)
        moved = boxes + torch.randn(count, 4, generator=generator) * 2
        extra = torch.tensor([[1.0, 1, 12, 12]])
        found = torch.cat([moved[: count - 1] if count > 2 else moved, extra])
        of = torch.cat([labels[: len(found) - 1], torch.tensor([1])])
        told.append({"boxes": found, "labels": of, "scores": torch.rand(len(found), generator=generator)})
        truth.append({"boxes": boxes, "labels": labels})
    return told, truth


def by_coco(told: list[dict], truth: list[dict], kinds: list[int]) -> np.ndarray:
    """-> map, map50, map75"""

    def wide(box: torch.Tensor) -> list[float]:
        x0, y0, x1, y1 = box.tolist()
        return [x0, y0, x1 - x0, y1 - y0]

    annotations, results = [], []
    for image, (said, there) in enumerate(zip(told, truth)):
        for box, kind in zip(there["boxes"], there["labels"].tolist()):
            size = wide(box)
            one = {"id": len(annotations) + 1, "image_id": image, "category_id": kind, "bbox": size, "iscrowd": 0}
            annotations.append(one | {"area": size[2] * size[3]})
        for box, kind, score in zip(said["boxes"], said["labels"].tolist(), said["scores"].tolist()):
            results.append({"image_id": image, "category_id": kind, "bbox": wide(box), "score": score})
    coco = COCO()
    images = [{"id": image} for image in range(len(truth))]
    coco.dataset = {"info": {}, "images": images, "annotations": annotations}
    coco.dataset["categories"] = [{"id": kind} for kind in kinds]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        measured = COCOeval(coco, coco.loadRes(results), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return measured.stats[:3]


@pytest.mark.parametrize("seed", range(3))
def test_beside_pycocotools(seed):
    told, truth = draw(seed)
    metric = AveragePrecision(CLASSES)
    for half in (slice(0, 2), slice(2, 6)):
        metric.update(told[half], truth[half])
    found = metric.compute()
    assert list(found) == metric.names()
    every = by_coco(told, truth, [0, 1])
    assert [float(found[name]) for name in ("map", "map50", "map75")] == pytest.approx(every.tolist(), abs=1e-5)
    assert 0 < found["map"] < found["map50"] <= 1
    for kind, name in enumerate(CLASSES[:2]):
        one = by_coco(told, truth, [kind])
        values = [float(found[f"map/{name}"]), float(found[f"map50/{name}"])]
        assert values == pytest.approx(one[:2].tolist(), abs=1e-5)
    assert found["map/never"] == found["map50/never"] == -1


def test_by_hand():
    """IoU of 0.6 counts at 0.5, 0.55 and 0.6; what was told first and is nothing halves the precision."""
    truth = [{"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}]
    boxes = torch.tensor([[50.0, 50, 60, 60], [0, 0, 10, 6.05]])
    told = [{"boxes": boxes, "labels": torch.tensor([0, 0]), "scores": torch.tensor([0.9, 0.8])}]
    metric = AveragePrecision(["a"])
    metric.update(told, truth)
    found = metric.compute()
    assert float(found["map50"]) == pytest.approx(0.5)
    assert float(found["map"]) == pytest.approx(0.5 * 3 / 10)
    assert float(found["map75"]) == 0


def test_nothing_told_and_a_picture():
    metric = AveragePrecision(["a"])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    metric.update([nothing], [{"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([0])}])
    assert float(metric.compute()["map50"]) == 0
    assert metric.figure().axes[0].get_yticklabels()[0].get_text() == "a"
