"""Mean average precision of object detection as in COCO (Lin et al. 2014), over all classes and for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from mm.configurable import Configurable
from mm.extras import require
from mm.metrics._labels import inches, set_ticks

# The values of pycocotools. torchmetrics (1.9) rounds them to float32, so that a recall of 0.5 is below 0.5.
OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()


class AveragePrecision(MeanAveragePrecision, Configurable):
    """Average precision of COCO, computed by pycocotools.

    The metrics are `map`, the mean over the IoU thresholds 0.5, 0.55 ... 0.95, `map50` and `map75`, at the thresholds
    0.5 and 0.75, and for each class "map/<class>" and "map50/<class>". A class without any true box is left out of the
    means, and its own metrics are -1.

    `update` takes a list of predictions and a list of targets with one dictionary per image: the corners `boxes` (N,
    4), `scores` and `labels` of the predictions, `boxes` and `labels` of the targets.

    Args:
        classes: Names of the classes, by class index.
        **kwargs: Arguments of `torchmetrics.detection.MeanAveragePrecision`.
    """

    higher_is_better = True

    def __init__(self, classes: Sequence[str], **kwargs: Any):
        require("pycocotools", "detection")  # imported by torchmetrics
        super().__init__(extended_summary=True, iou_thresholds=OVERLAPS, rec_thresholds=RECALLS, **kwargs)
        self.kinds = list(classes)

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """Gather the states of all processes as Python objects.

        torchmetrics would gather them image by image, which fails if the processes have different numbers of images.
        """
        own = {name: [x.cpu() for x in getattr(self, name)] for name in self._reductions}
        group = process_group or self.process_group
        everyone: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(everyone, own, group)
        for name in own:
            setattr(self, name, [x.to(self.device) for part in everyone for x in part[name]])

    def compute(self) -> dict[str, Tensor]:
        found = super().compute()
        # axes: IoU, recall, class, area (all), maximum number of boxes (100); -1 for a class without a true box
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
        """Draw a bar chart of the average precision of each class, at IoU 0.5 and over all IoU thresholds."""
        Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and rarely needed

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
