"""Head for object detection, which predicts classes, a box and its quality for each token of an image."""

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

FLOOR = -1e4  # class logit of padding
PRIOR = 0.01  # initial probability of each class, so that background does not dominate the loss (Lin et al. 2017)
HALF = 0.1  # initial distance of a token to each side of its box, as a fraction of the image
SCALE = 1000.0  # width of the image for torchvision, which adds 1e-7 to areas


def assign(boxes: Tensor, real: Tensor, position: Tensor, mask: Tensor, top_k: int) -> Tensor:
    """Assign the object to predict to each token.

    An object is assigned to the `top_k` tokens that are nearest to its centre (the first step of ATSS, Zhang et al.
    2020) and lie inside of its box. It is always assigned to the nearest token, even if this lies outside of the box.
    Distances are measured relative to the width and height of the box. If several objects are assigned to a token, it
    predicts the smallest (Tian et al. 2019).

    Args:
        boxes: Boxes (x0, y0, x1, y1) of the objects, (B, N, 4), relative to the image.
        real: Whether each box is an object and not padding, (B, N).
        position: Centres (y, x) of the tokens, (B, T, 2), relative to the image.
        mask: Mask of the tokens, (B, T).
        top_k: Number of nearest tokens.

    Returns:
        Index of the object of each token, (B, T); -1: no object.
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
    """Predict the objects of an image from each of its tokens (FCOS, Tian et al. 2019).

    A token near the centre of an object predicts the class of the object (focal loss, Lin et al. 2017), the distances
    to the four sides of its box (GIoU loss, Rezatofighi et al. 2019), and the IoU of the predicted box in place of the
    centre-ness (Zhang et al. 2021). The score of a box is the geometric mean of its class probability and its predicted
    IoU.

    Args:
        classes: Names of the classes.
        input: Name of the input whose tokens predict the objects.
        embed_dim: Width D of the fused features.
        num_layers: Number of hidden layers of each of the two branches (class, and box with its quality).
        top_k: Number of tokens that are trained to predict an object, those nearest to its centre (ATSS, Zhang et al.
            2020).
        score_threshold: Minimum score of a predicted box.
        nms_iou_threshold: IoU above which non-maximum suppression drops the box with the lower score of two boxes of
            one class.
        max_detections: Maximum number of boxes per image. It includes boxes below `score_threshold`, which average
            precision takes into account.
        dropout: Dropout probability of the hidden layers.
        weight: Weight of this head's loss in the sum over several heads.

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
        """Predict class scores, box and quality of each fused token (B, T, D)."""
        what, where = self.what(fused.tokens), self.where(fused.tokens)
        scores = self.label(what).float().masked_fill(~fused.mask.unsqueeze(-1), FLOOR)
        quality = self.fit(where).float().squeeze(-1)
        distance = self.reach(where).float().clamp(max=3.0).exp()  # at most e^3 times the image
        centre = fused.position.float().flip(-1)  # (B, T, 2) of (x, y)
        return Boxes(scores, quality, torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1))

    def loss(self, prediction: Boxes, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of labelled rows with tokens, and the number of tokens with an assigned object.

        A row without assigned tokens counts as one token, because its loss of background is part of the sum.

        Args:
            prediction: Boxes of the T tokens.
            target: Class index and box (x0, y0, x1, y1) of each object, (B, N, 5). The class of an image without
                objects is -1. Padding and unlabelled rows are NaN.
            fused: The fused Features, whose positions are the centres of the tokens.
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
    """Return a layer norm followed by hidden layers, which maps (..., D) to (..., D)."""
    hidden = [nn.Sequential(nn.Linear(dim, dim), nn.GELU()) for _ in range(layers)]
    return nn.Sequential(nn.LayerNorm(dim), *hidden, nn.Dropout(dropout))


def paired_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU of each box of one set with the box at the same index of the other set. (K, 4), (K, 4) -> (K,)"""
    both = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (one, other)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)
