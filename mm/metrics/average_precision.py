"""Mean average precision of boxes, as COCO has it (Lin 2014), by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from mm.configurable import Configurable
from mm.extras import require
from mm.metrics._labels import inches, set_ticks

# As pycocotools has them: torchmetrics (1.9) rounds its own to float32, and a recall of exactly 0.5 is then below 0.5.
OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()


class AveragePrecision(MeanAveragePrecision, Configurable):
    """COCO's average precision, by pycocotools: the mean over IoU 0.5, 0.55 ... 0.95 (map), of 0.5 and of 0.75 alone.

    update: per picture {boxes (N, 4) of corners, scores, labels}, and {boxes, labels}. Its names: map50, map, map75,
    and "map50/<class>", "map/<class>"; a class without any box has no part in the mean and -1 of its own.
    """

    higher_is_better = True

    def __init__(self, classes: Sequence[str], **kwargs: Any):
        require("pycocotools", "detection")  # which torchmetrics imports
        super().__init__(extended_summary=True, iou_thresholds=OVERLAPS, rec_thresholds=RECALLS, **kwargs)
        self.kinds = list(classes)

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """As objects: torchmetrics would gather picture by picture, of which processes have seen different numbers."""
        own = {name: [x.cpu() for x in getattr(self, name)] for name in self._reductions}
        group = process_group or self.process_group
        everyone: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(everyone, own, group)
        for name in own:
            setattr(self, name, [x.to(self.device) for part in everyone for x in part[name]])

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        found = super().compute()
        # IoU, recall, class, area (all), most boxes of a picture (100); -1 where the class has no box
        precision = found["precision"][:, :, :, 0, -1]
        known = {int(kind): i for i, kind in enumerate(torch.atleast_1d(found["classes"]).tolist())}
        values = {"map50": found["map_50"], "map": found["map"], "map75": found["map_75"]}
        for number, kind in enumerate(self.kinds):
            each = precision[:, :, known[number]] if number in known else torch.full_like(precision[:, :, 0], -1)
            values |= {f"map50/{kind}": each[0].mean(), f"map/{kind}": each.mean()}
        return {name: value.float() for name, value in values.items()}

    def names(self) -> list[str]:
        return ["map50", "map", "map75", *(f"{name}/{kind}" for kind in self.kinds for name in ("map50", "map"))]

    def figure(self) -> Any:
        """Of each class, at IoU 0.5 and over all."""
        Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and seldom drawn

        found = self.compute()
        drawn = Figure(figsize=(6.5, inches(1.2, 0.4, len(self.kinds))), layout="constrained")
        axes = drawn.add_subplot()
        for i, name in enumerate(("map50", "map")):
            places = [row + 0.35 * (i - 0.5) for row in range(len(self.kinds))]
            axes.barh(places, [max(0.0, float(found[f"{name}/{k}"])) for k in self.kinds], height=0.3, label=name)
        set_ticks(axes.yaxis, self.kinds)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize=8)
        return drawn
