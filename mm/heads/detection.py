"""Objects in a picture: a class, a box and how well it fits, predicted by each of its tokens."""

from collections.abc import Sequence
from dataclasses import replace
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from mm.heads.base import Head
from mm.predictions import Boxes, Decoding
from mm.types import Features

FLOOR = -1e4  # a logit where no token is
PRIOR = 0.01  # probability of each class at the start, else the many tokens of background drown the rest (Lin 2017)
HALF = 0.1  # of a picture's side: how far a box reaches to each side of its token at the start
SCALE = 1000.0  # torchvision adds 1e-7 to areas, which is small beside those of a picture this wide


def assign(boxes: Tensor, real: Tensor, position: Tensor, mask: Tensor, top_k: int) -> Tensor:
    """Assign an object to each token. (B, N, 4), (B, N), (B, T, 2) of (y, x), (B, T) -> (B, T), -1 for none

    An object has the `top_k` tokens nearest to its centre, measured by its width and height, that lie in it (the first
    step of ATSS, Zhang 2020), and the nearest token wherever that lies. A token of several objects predicts the
    smallest (Tian 2019).
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-9)  # (B, N, 2)
    centre = (boxes[..., 2:] + boxes[..., :2]) / 2
    offset = (position.flip(-1).unsqueeze(1) - centre.unsqueeze(2)) / sides.unsqueeze(2)  # (B, N, T, 2)
    distance = offset.abs().amax(-1).masked_fill(~mask.unsqueeze(1), torch.inf)  # below 0.5 within the box
    closest, order = distance.topk(min(top_k, distance.shape[-1]), dim=-1, largest=False)
    inside = closest < 0.5
    inside[..., 0] = closest[..., 0] < torch.inf
    owns = torch.zeros_like(distance, dtype=torch.bool).scatter(-1, order, inside) & real.unsqueeze(-1)
    area = sides.prod(-1).unsqueeze(-1).masked_fill(~owns, torch.inf)  # (B, N, T)
    smallest, which = area.min(1)
    return which.masked_fill(smallest == torch.inf, -1)


class DetectionHead(Head):
    """Predict the objects of a picture from each of its tokens (FCOS, Tian 2019).

    A token near the centre of an object predicts its class (focal loss, Lin 2017), the distances to its four sides
    (GIoU loss, Rezatofighi 2019), and, instead of centre-ness, the IoU of the predicted box (Zhang 2021). The score of
    a box is the geometric mean of class probability and IoU.

    Args:
        classes: Names of the classes.
        input: Name of the input whose tokens predict the objects.
        embed_dim: Width D of the fused features.
        num_layers: Number of hidden layers of each of the two branches.
        top_k: Number of tokens that learn an object, those nearest to its centre (ATSS, Zhang 2020).
        score_threshold: Score from which a box is predicted.
        nms_iou_threshold: IoU from which the box with the lower score of two boxes of one class is dropped.
        max_detections: Largest number of boxes of a picture, those below `score_threshold` included, which count for
            average precision.
        dropout: Applied to the hidden layers.
        weight: Factor on this head's loss among those of several heads.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        embed_dim: int,
        num_layers: int = 1,
        top_k: int = 9,
        score_threshold: float = 0.5,
        nms_iou_threshold: float = 0.6,
        max_detections: int = 100,
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(classes=classes, input=input, weight=weight)
        for name, value, low in (
            ("num_layers", num_layers, 0),
            ("top_k", top_k, 1),
            ("max_detections", max_detections, 1),
        ):
            if value < low:
                raise ValueError(f"{name}: got {value}, wanted at least {low}")
        for name, value in (("score_threshold", score_threshold), ("nms_iou_threshold", nms_iou_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, wanted a number from 0 to 1")
        self.top_k = top_k
        self.score_threshold = score_threshold
        self.nms_iou_threshold = nms_iou_threshold
        self.max_detections = max_detections
        self.what = branch(embed_dim, num_layers, dropout)
        self.where = branch(embed_dim, num_layers, dropout)
        self.label = nn.Linear(embed_dim, len(self.classes))
        self.reach = nn.Linear(embed_dim, 4)  # logarithms of the distances to left, top, right, bottom
        self.fit = nn.Linear(embed_dim, 1)
        nn.init.constant_(self.label.bias, -log(1 / PRIOR - 1))
        nn.init.constant_(self.reach.bias, log(HALF))
        for layer in (self.label, self.reach, self.fit):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, fused: Features, target: Tensor | None = None) -> Boxes:
        """tokens (B, T, D)"""
        what, where = self.what(fused.tokens), self.where(fused.tokens)
        scores = self.label(what).float().masked_fill(~fused.mask.unsqueeze(-1), FLOOR)
        quality = self.fit(where).float().squeeze(-1)
        distance = self.reach(where).float().clamp(max=3.0).exp()  # e^3 pictures: nothing reaches further
        centre = fused.position.float().flip(-1)  # (B, T, 2) of (x, y)
        return Boxes(scores, quality, torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1))

    def loss(self, prediction: Boxes, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """target (B, N, 5) -> sum over labelled rows that have tokens; the tokens that tell objects, of each at least 1

        Of a row without objects there is none such, but its background counts.
        """
        rows = ~target[:, 0, 0].isnan() & fused.mask.any(1)
        kind, boxes = target[rows, :, 0], target[rows, :, 1:].nan_to_num()
        scores, quality, told = (x[rows] for x in prediction)
        mask = fused.mask[rows]
        which = assign(boxes, kind >= 0, fused.position[rows].float(), mask, self.top_k)  # (R, T)
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

    @property
    def decoding(self) -> Decoding:
        return replace(
            super().decoding,
            threshold=self.score_threshold,
            nms_iou_threshold=self.nms_iou_threshold,
            max_detections=self.max_detections,
        )


def branch(dim: int, layers: int, dropout: float) -> nn.Sequential:
    """Norm, then hidden layers. (..., D) -> (..., D)"""
    hidden = [nn.Sequential(nn.Linear(dim, dim), nn.GELU()) for _ in range(layers)]
    return nn.Sequential(nn.LayerNorm(dim), *hidden, nn.Dropout(dropout))


def paired_iou(one: Tensor, other: Tensor) -> Tensor:
    """Of each box with the one in its place. (K, 4), (K, 4) -> (K,)"""
    both = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (one, other)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)
