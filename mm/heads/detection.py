"""Objects in a picture: a class, a box and how well it fits, told by each of its tokens."""

from collections.abc import Callable, Sequence
from math import log
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, generalized_box_iou_loss, sigmoid_focal_loss

from mm.configurable import Configurable
from mm.types import Features, log_odds, sigmoid
from mm.windows import first_windows

FLOOR = -1e4  # a logit where no token is
PRIOR = 0.01  # probability of each class at the start, else the many tokens of background drown the rest (Lin 2017)
HALF = 0.1  # of a picture's side: how far a box reaches to each side of its token at the start
SCALE = 1000.0  # torchvision adds 1e-7 to areas, which is small beside those of a picture this wide
RIGHT = 0.5  # IoU from which a box is an object's
LEAST = 0.01  # score below which a box is not even faint
CANDIDATES = 1000  # boxes of a picture among which the overlapping ones are looked for


class Detections(NamedTuple):
    """Of every token; boxes x0, y0, x1, y1 in parts of what the pixels show."""

    scores: Tensor  # (B, T, C) logits
    quality: Tensor  # (B, T) logit of the box's IoU with the object's
    boxes: Tensor  # (B, T, 4)


def assign(boxes: Tensor, real: Tensor, position: Tensor, mask: Tensor, nearest: int) -> Tensor:
    """Which object each token has to tell. (B, N, 4), (B, N), (B, T, 2) of (y, x), (B, T) -> (B, T), -1 for none

    Every object has the tokens nearest to its centre, by its own width and height, that lie in it (the first step of
    ATSS, Zhang 2020), and the very nearest wherever that lies; a token of several tells the smallest (Tian 2019).
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-9)  # (B, N, 2)
    centre = (boxes[..., 2:] + boxes[..., :2]) / 2
    offset = (position.flip(-1).unsqueeze(1) - centre.unsqueeze(2)) / sides.unsqueeze(2)  # (B, N, T, 2)
    distance = offset.abs().amax(-1).masked_fill(~mask.unsqueeze(1), torch.inf)  # below 0.5 within the box
    closest, order = distance.topk(min(nearest, distance.shape[-1]), dim=-1, largest=False)
    inside = closest < 0.5
    inside[..., 0] = closest[..., 0] < torch.inf
    owns = torch.zeros_like(distance, dtype=torch.bool).scatter(-1, order, inside) & real.unsqueeze(-1)
    area = sides.prod(-1).unsqueeze(-1).masked_fill(~owns, torch.inf)  # (B, N, T)
    smallest, which = area.min(1)
    return which.masked_fill(smallest == torch.inf, -1)


class DetectionHead(Configurable, nn.Module):
    """Objects told by each of the anchor's tokens, whose positions are its places in the picture (FCOS, Tian 2019).

    A token near the middle of an object tells its class (focal loss, Lin 2017), how far it reaches to the four sides
    (GIoU loss, Rezatofighi 2019), and, in place of centre-ness, the IoU of the box it tells (Zhang 2021); the score is
    the geometric mean of class and IoU. classes: their names; input: the anchor's name; layers: hidden ones of each of
    the two branches; nearest: tokens that learn an object; threshold: score from which a box is told; overlap: IoU from
    which, of two boxes of one class, the one of the lower score is left out; most: boxes of a picture, those below the
    threshold included, which count for average precision. Errors: ValueError for numbers out of range.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        embed_dim: int,
        layers: int = 1,
        nearest: int = 9,
        threshold: float = 0.5,
        overlap: float = 0.6,
        most: int = 100,
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__()
        for name, value, low in (("layers", layers, 0), ("nearest", nearest, 1), ("most", most, 1)):
            if value < low:
                raise ValueError(f"{name}: got {value}, wanted at least {low}")
        for name, value in (("threshold", threshold), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, wanted a number from 0 to 1")
        self.classes = list(classes)
        self.input = input
        self.nearest = nearest
        self.threshold = threshold
        self.overlap = overlap
        self.most = most
        self.weight = weight
        self.what = branch(embed_dim, layers, dropout)
        self.where = branch(embed_dim, layers, dropout)
        self.label = nn.Linear(embed_dim, len(self.classes))
        self.reach = nn.Linear(embed_dim, 4)  # logarithms of the distances to left, top, right, bottom
        self.fit = nn.Linear(embed_dim, 1)
        nn.init.constant_(self.label.bias, -log(1 / PRIOR - 1))
        nn.init.constant_(self.reach.bias, log(HALF))
        for layer in (self.label, self.reach, self.fit):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, fused: Features, target: Tensor | None = None) -> Detections:
        """tokens (B, T, D)"""
        what, where = self.what(fused.tokens), self.where(fused.tokens)
        scores = self.label(what).float().masked_fill(~fused.mask.unsqueeze(-1), FLOOR)
        quality = self.fit(where).float().squeeze(-1)
        distance = self.reach(where).float().clamp(max=3.0).exp()  # e^3 pictures: nothing reaches further
        centre = fused.position.float().flip(-1)  # (B, T, 2) of (x, y)
        return Detections(scores, quality, torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1))

    def loss(self, prediction: Detections, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """target (B, N, 5) -> sum over labelled rows that have tokens; the tokens that tell objects, of each at least 1

        Of a row without objects there is none such, but its background counts.
        """
        rows = ~target[:, 0, 0].isnan() & fused.mask.any(1)
        kind, boxes = target[rows, :, 0], target[rows, :, 1:].nan_to_num()
        scores, quality, told = (x[rows] for x in prediction)
        mask = fused.mask[rows]
        which = assign(boxes, kind >= 0, fused.position[rows].float(), mask, self.nearest)  # (R, T)
        row, token = (which >= 0).nonzero(as_tuple=True)
        own = which[row, token]
        wanted = torch.zeros_like(scores)
        wanted[row, token, kind[row, own].long()] = 1
        total = sigmoid_focal_loss(scores[mask], wanted[mask], reduction="sum")
        told, truth = told[row, token] * SCALE, boxes[row, own] * SCALE
        total = total + generalized_box_iou_loss(told, truth, reduction="sum")
        total = total + F.binary_cross_entropy_with_logits(
            quality[row, token], paired_iou(told, truth).detach(), reduction="sum"
        )
        return total, (which >= 0).sum(1).clamp(min=1).sum()

    def decode(self, prediction: Detections, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": [{"label", "box": x0, y0, x1, y1 in pixels of the original, "score"}], "faint"}

        faint: the same of those below the threshold; the best first.
        """
        chances = (prediction.scores.sigmoid() * prediction.quality.sigmoid().unsqueeze(-1)).sqrt()  # (B, T, C)
        rows = []
        places = meta[f"{self.input}/frame"], meta[f"{self.input}/size"]
        for chance, boxes, frame, size in zip(chances, prediction.boxes, *places, strict=True):
            score, index = chance.flatten().topk(min(CANDIDATES, chance.numel()))
            some = score > LEAST
            score, index = score[some], index[some]
            kind, boxes = index % len(self.classes), to_pixels(boxes[index // len(self.classes)], frame, size)
            keep = batched_nms(boxes, score, kind, self.overlap)[: self.most]
            told = [
                {"label": self.classes[k], "box": [round(x, 2) for x in box], "score": round(s, 4)}
                for k, box, s in zip(kind[keep].tolist(), boxes[keep].tolist(), score[keep].tolist())
            ]
            rows.append(self.parted(told))
        return rows

    def parted(self, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Objects, the best first -> as in decode."""
        sure = sum(one["score"] >= self.threshold for one in told)
        return {"prediction": list(told[:sure]), "faint": list(told[sure:])}

    def compare(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """-> per picture {"boxes", "labels", "scores"} of what is told, faint ones included, and of what is there"""
        told = [[*row["prediction"], *row["faint"]] for row in said]
        return [self.tensors(row) for row in told], [self.tensors(row) for row in truth]

    def judge(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[float], list[bool]]:
        """Every box is told one, faint ones included, right where it is an object's: see `matched`."""
        told, there = self.compare(said, truth)
        scores = [log_odds(float(score)) for row in told for score in row["scores"]]
        return scores, [right for pair in zip(told, there, strict=True) for right in matched(*pair)]

    def revised(self, row: dict[str, Any], revise: Callable[[float], float]) -> dict[str, Any]:
        """The threshold is compared with what is revised."""
        told = [*row["prediction"], *row["faint"]]
        return self.parted([one | {"score": round(sigmoid(revise(log_odds(one["score"]))), 6)} for one in told])

    def tensors(self, objects: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Of objects, as torchvision and torchmetrics have them."""
        found = {
            "boxes": torch.tensor([one["box"] for one in objects], dtype=torch.float32).view(-1, 4),
            "labels": torch.tensor([self.classes.index(one["label"]) for one in objects], dtype=torch.long),
        }
        if all("score" in one for one in objects):
            found["scores"] = torch.tensor([one["score"] for one in objects], dtype=torch.float32)
        return found

    def merge(self, prediction: Detections, group: Tensor, count: int) -> Detections:
        """Of rows that another input has windows of, the first, which alone learns. (B, ...), (B,) -> (count, ...)"""
        first = first_windows(group, count)
        return Detections(*(x[first] for x in prediction))


def branch(dim: int, layers: int, dropout: float) -> nn.Sequential:
    """Norm, then hidden layers. (..., D) -> (..., D)"""
    hidden = [nn.Sequential(nn.Linear(dim, dim), nn.GELU()) for _ in range(layers)]
    return nn.Sequential(nn.LayerNorm(dim), *hidden, nn.Dropout(dropout))


def paired_iou(one: Tensor, other: Tensor) -> Tensor:
    """Of each box with the one in its place. (K, 4), (K, 4) -> (K,)"""
    both = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (one, other)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


def matched(told: dict[str, Tensor], there: dict[str, Tensor]) -> list[bool]:
    """Which boxes, the best first, are objects: of its class, of an IoU of at least 0.5, and of no better box.

    As average precision at 0.5 counts them (COCO): a box takes of the objects that are left the one
    that it fits best.
    """
    fits = box_iou(told["boxes"], there["boxes"]) * (told["labels"].unsqueeze(1) == there["labels"])  # (K, N)
    free = torch.ones(len(there["labels"]), dtype=torch.bool)
    right = []
    for fit in fits:
        best = (fit * free).max(0) if len(fit) else None
        right.append(best is not None and bool(best.values >= RIGHT))
        if best is not None and right[-1]:
            free[best.indices] = False
    return right


def to_pixels(boxes: Tensor, frame: Tensor, size: Tensor) -> Tensor:
    """Parts of what the pixels show -> pixels of the original, cut at its edges. (K, 4), (4,), (2,) -> (K, 4)"""
    start, end = frame.view(2, 2).to(boxes)
    corners = start + boxes.view(-1, 2, 2) * (end - start)
    width, height = size.tolist()
    return clip_boxes_to_image(torch.cat([corners.amin(1), corners.amax(1)], dim=1), (height, width))
