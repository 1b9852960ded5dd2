"""Objects in a picture: a class, a box and a score each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions.base import Decoding, Prediction, log_odds, sigmoid
from mm.windows import first_windows

MATCH_IOU = 0.5  # IoU from which a box is that of an object
MIN_SCORE = 0.01  # boxes with a lower score are dropped
NUM_CANDIDATES = 1000  # boxes of a picture that non-maximum suppression looks at


class BoxesFields(NamedTuple):
    """The tensors of Boxes, for every token; boxes are x0, y0, x1, y1 as parts (0..1) of what the pixels show."""

    scores: Tensor  # (B, T, C) logits
    quality: Tensor  # (B, T) logit of the box's IoU with the object's
    boxes: Tensor  # (B, T, 4)


class Boxes(Prediction, BoxesFields):
    """A box for each token of a picture; its score is the geometric mean of class probability and predicted IoU.

    A target is (B, N, 5) of class and box. `meta` has the keys "frame" and "size" of the input.
    """

    __slots__ = ()
    calibration = "platt"
    compares_decoded = True

    def merge(self, group: Tensor, count: int) -> "Boxes":
        """Take the first window of each row: only another input has several, and the first window alone is learnt."""
        first = first_windows(group, count)
        return Boxes(*(x[first] for x in self))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": [{"label", "box", "score"}], "low_confidence"} per row.

        A box is x0, y0, x1, y1 in pixels of the original. The best come first; "low_confidence" lists the boxes
        below the threshold.
        """
        from torchvision.ops import batched_nms  # slow to import

        classes = decoding.class_names(self.scores.shape[2])
        input = decoding.tokens_of()
        chances = (self.scores.sigmoid() * self.quality.sigmoid().unsqueeze(-1)).sqrt()  # (B, T, C)
        rows = []
        places = meta[f"{input}/frame"], meta[f"{input}/size"]
        for chance, boxes, frame, size in zip(chances, self.boxes, *places, strict=True):
            score, index = chance.flatten().topk(min(NUM_CANDIDATES, chance.numel()))
            some = score > MIN_SCORE
            score, index = score[some], index[some]
            kind, boxes = index % len(classes), to_pixels(boxes[index // len(classes)], frame, size)
            keep = batched_nms(boxes, score, kind, decoding.nms_iou_threshold)[: decoding.max_detections]
            objects = [
                {"label": classes[k], "box": [round(x, 2) for x in box], "score": round(s, 4)}
                for k, box, s in zip(kind[keep].tolist(), boxes[keep].tolist(), score[keep].tolist())
            ]
            rows.append(split_by_score(objects, decoding.threshold))
        return rows

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[Any], list[Any]]:
        """Return predicted and true boxes per picture, {"boxes", "labels", "scores"} as torchmetrics has them.

        Boxes below the threshold are included.
        """
        predicted = [[*row["prediction"], *row["low_confidence"]] for row in rows]
        return [to_tensors(row, decoding) for row in predicted], [to_tensors(row, decoding) for row in truth]

    def confidences(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[float], list[bool]]:
        """Take every box, also those below the threshold, as an answer that is right if it matches an object."""
        predicted, true = self.compare(rows, truth, decoding)
        odds = [log_odds(float(score)) for row in predicted for score in row["scores"]]
        return odds, [right for pair in zip(predicted, true, strict=True) for right in match(*pair)]

    def with_confidence(
        self, row: dict[str, Any], scale: Callable[[float], float], decoding: Decoding
    ) -> dict[str, Any]:
        """Scale the scores; the threshold is compared with the scaled ones."""
        objects = [*row["prediction"], *row["low_confidence"]]
        scaled = [one | {"score": round(sigmoid(scale(log_odds(one["score"]))), 6)} for one in objects]
        return split_by_score(scaled, decoding.threshold)


def split_by_score(objects: Sequence[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Split objects, the best first, into those that are predicted and those below the threshold."""
    sure = sum(one["score"] >= threshold for one in objects)
    return {"prediction": list(objects[:sure]), "low_confidence": list(objects[sure:])}


def to_tensors(objects: Sequence[dict[str, Any]], decoding: Decoding) -> dict[str, Tensor]:
    """Return objects as torchvision and torchmetrics have them."""
    tensors = {
        "boxes": torch.tensor([one["box"] for one in objects], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([decoding.classes.index(one["label"]) for one in objects], dtype=torch.long),
    }
    if all("score" in one for one in objects):
        tensors["scores"] = torch.tensor([one["score"] for one in objects], dtype=torch.float32)
    return tensors


def match(predicted: dict[str, Tensor], true: dict[str, Tensor]) -> list[bool]:
    """Return which predicted boxes, the best first, are those of objects.

    A box matches an object of its class with an IoU of at least 0.5 that no better box has matched, as average
    precision at 0.5 counts them (COCO): of the objects that are left, a box takes the one that it fits best.
    """
    from torchvision.ops import box_iou  # slow to import

    fits = box_iou(predicted["boxes"], true["boxes"]) * (predicted["labels"].unsqueeze(1) == true["labels"])  # (K, N)
    free = torch.ones(len(true["labels"]), dtype=torch.bool)
    right = []
    for fit in fits:
        best = (fit * free).max(0) if len(fit) else None
        right.append(best is not None and bool(best.values >= MATCH_IOU))
        if best is not None and right[-1]:
            free[best.indices] = False
    return right


def to_pixels(boxes: Tensor, frame: Tensor, size: Tensor) -> Tensor:
    """Convert boxes from parts of what the pixels show to pixels of the original, cut at its edges.

    (K, 4), (4,), (2,) -> (K, 4)
    """
    from torchvision.ops import clip_boxes_to_image  # slow to import

    start, end = frame.view(2, 2).to(boxes)
    corners = start + boxes.view(-1, 2, 2) * (end - start)
    width, height = size.tolist()
    return clip_boxes_to_image(torch.cat([corners.amin(1), corners.amax(1)], dim=1), (height, width))
