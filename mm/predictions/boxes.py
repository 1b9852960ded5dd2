"""Prediction of objects in an image, each with a class, a box and a score."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions.base import Decoding, Prediction, log_odds, sigmoid
from mm.windows import first_windows

MATCH_IOU = 0.5  # minimum IoU of a box and the object that it matches
MIN_SCORE = 0.01  # boxes with a lower score are dropped
NUM_CANDIDATES = 1000  # maximum number of boxes of an image that enter non-maximum suppression


class BoxesFields(NamedTuple):
    """Tensors of `Boxes`, one row per token of the image.

    Boxes are x0, y0, x1, y1 in 0..1, relative to the region of the image that the pixels show.
    """

    scores: Tensor  # (B, T, C) logits
    quality: Tensor  # (B, T) logit of the predicted IoU of the box with the object
    boxes: Tensor  # (B, T, 4)


class Boxes(Prediction, BoxesFields):
    """One box per token of an image, with a score: the geometric mean of class probability and predicted IoU.

    A target is (B, N, 5): class index and box of each of N objects. `meta` has the keys "frame" and "size" of the
    input.
    """

    __slots__ = ()
    calibration = "platt"
    compares_decoded = True
    has_threshold = True

    def merge(self, group: Tensor, count: int) -> "Boxes":
        """Take the prediction of the first window of each row.

        A row has several windows only because of another input, and the head is trained on the first window only.
        """
        first = first_windows(group, count)
        return Boxes(*(x[first] for x in self))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": [{"label", "box", "score"}, ...], "low_confidence": [...]} per row.

        A box is x0, y0, x1, y1 in pixels of the original image. Boxes are sorted by descending score. Those below the
        threshold are listed under "low_confidence".
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
        """Return the predicted and the true boxes of each image, as {"boxes", "labels", "scores"} of torchmetrics.

        Predicted boxes below the threshold are included.
        """
        predicted = [[*row["prediction"], *row["low_confidence"]] for row in rows]
        return [to_tensors(row, decoding) for row in predicted], [to_tensors(row, decoding) for row in truth]

    def confidences(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[float], list[bool]]:
        """Return the log-odds of each box, and whether it matches an object.

        Boxes below the threshold are included.
        """
        predicted, true = self.compare(rows, truth, decoding)
        odds = [log_odds(float(score)) for row in predicted for score in row["scores"]]
        return odds, [right for pair in zip(predicted, true, strict=True) for right in match(*pair)]

    def with_confidence(
        self, row: dict[str, Any], scale: Callable[[float], float], decoding: Decoding
    ) -> dict[str, Any]:
        """Return a decoded row with calibrated scores, split again by the score threshold.

        Args:
            row: The decoded row, with its boxes and scores.
            scale: Function from the log-odds of a score to its calibrated log-odds.
            decoding: The decoding settings, whose threshold is compared with the calibrated scores.
        """
        objects = [*row["prediction"], *row["low_confidence"]]
        scaled = [one | {"score": round(sigmoid(scale(log_odds(one["score"]))), 6)} for one in objects]
        return split_by_score(scaled, decoding.threshold)


def split_by_score(objects: Sequence[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Split objects, which are sorted by descending score, into those that reach the threshold and those below it."""
    sure = sum(one["score"] >= threshold for one in objects)
    return {"prediction": list(objects[:sure]), "low_confidence": list(objects[sure:])}


def to_tensors(objects: Sequence[dict[str, Any]], decoding: Decoding) -> dict[str, Tensor]:
    """Convert objects to the dictionary of tensors that torchvision and torchmetrics expect."""
    tensors = {
        "boxes": torch.tensor([one["box"] for one in objects], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([decoding.classes.index(one["label"]) for one in objects], dtype=torch.long),
    }
    if all("score" in one for one in objects):
        tensors["scores"] = torch.tensor([one["score"] for one in objects], dtype=torch.float32)
    return tensors


def match(predicted: dict[str, Tensor], true: dict[str, Tensor]) -> list[bool]:
    """Return whether each predicted box matches an object.

    Boxes are assigned in order. Each takes the object of its class with the highest IoU that no earlier box has taken,
    and matches it if the IoU is at least 0.5. This is the rule of average precision at IoU 0.5 in COCO.

    Args:
        predicted: Predicted boxes, sorted by descending score, as `to_tensors` returns them.
        true: True boxes, as `to_tensors` returns them.
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
    """Convert boxes from coordinates in 0..1 to pixels of the original image, clipped at its edges.

    Args:
        boxes: Boxes relative to the region that the pixels show, (K, 4).
        frame: Corners x0, y0, x1, y1 of this region in the original image, in pixels, (4,).
        size: Width and height of the original image in pixels, (2,).

    Returns:
        Boxes in pixels, (K, 4).
    """
    from torchvision.ops import clip_boxes_to_image  # slow to import

    start, end = frame.view(2, 2).to(boxes)
    corners = start + boxes.view(-1, 2, 2) * (end - start)
    width, height = size.tolist()
    return clip_boxes_to_image(torch.cat([corners.amin(1), corners.amax(1)], dim=1), (height, width))
