"""Assignment and losses beside torchvision's FCOS, suppression by hand, mirrored frames, and learning by heart."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import box_iou

from mm.contracts import random_features
from mm.heads.detection import SCALE, DetectionHead, assign, paired_iou
from mm.layers import grid_position
from mm.predictions import Boxes, log_odds, sigmoid
from mm.types import Features

SIDE = 10  # tokens of a grid's side; torchvision gets a picture of 80 pixels with a stride of 8
NAN = torch.nan


def head(**how) -> DetectionHead:
    torch.manual_seed(0)
    return DetectionHead(classes=["a", "b"], input="vision", embed_dim=16, **how)


def features(rows: int, seed: int = 0) -> Features:
    torch.manual_seed(seed)
    tokens = torch.randn(rows, SIDE * SIDE, 16)
    mask = torch.ones(rows, SIDE * SIDE, dtype=torch.bool)
    return Features(tokens, mask, tokens.mean(1), grid_position(SIDE, SIDE, rows, tokens.device))


def meta(*frames, size=(200, 100)) -> dict[str, torch.Tensor]:
    return {
        "vision/frame": torch.tensor(frames, dtype=torch.float32),
        "vision/size": torch.tensor([size] * len(frames), dtype=torch.float32),
    }


def squares(seed: int) -> torch.Tensor:
    """Overlapping squares of different areas around tokens, at least three tokens wide, within the picture. (6, 5)"""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(6):
        half = 0.16 + 0.006 * number
        x, y = ((torch.randint(2, SIDE - 2, (2,), generator=generator) + 0.5) / SIDE).tolist()
        rows.append([number % 2, x - half, y - half, x + half, y + half])
    return torch.tensor(rows)


def anchors() -> torch.Tensor:
    """torchvision's of one level: a square of the stride at each token, in pixels."""
    centre = grid_position(SIDE, SIDE, 1, torch.device("cpu"))[0].flip(-1) * 80
    return torch.cat([centre - 4, centre + 4], dim=1)


def matched(target: torch.Tensor) -> torch.Tensor:
    """What torchvision's FCOS assigns: the middle 3x3 tokens (centre sampling of 1.5 strides), the smallest first."""
    own = SimpleNamespace(center_sampling_radius=1.5)
    own.head = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, indices: indices)
    targets = [{"boxes": target[:, 1:] * 80, "labels": target[:, 0].long()}]
    return FCOS.compute_loss(own, targets, {}, [anchors()], [SIDE * SIDE])[0]


@pytest.mark.parametrize("seed", range(5))
def test_assignment_and_losses_beside_torchvision(seed):
    target = squares(seed)
    f = features(1, seed)
    which = assign(target[None, :, 1:], torch.ones(1, 6, dtype=torch.bool), f.position, f.mask, 9)[0]
    assert torch.equal(which, matched(target))
    made = head().requires_grad_(False)
    torch.nn.init.normal_(made.label.weight, std=0.3)
    torch.nn.init.normal_(made.reach.weight, std=0.1)
    prediction = made(f)
    total, count = made.loss(prediction, target[None], f)
    found = (which >= 0).nonzero().flatten()
    assert int(count) == len(found) > 9
    centre = f.position[0].flip(-1)
    reaches = torch.cat([centre - prediction.boxes[0, :, :2], prediction.boxes[0, :, 2:] - centre], dim=1)
    outputs = {
        "cls_logits": prediction.scores,
        "bbox_regression": reaches[None] * 80 / 8,  # in strides
        "bbox_ctrness": torch.zeros(1, SIDE * SIDE, 1),
    }
    theirs = SimpleNamespace(box_coder=FCOSHead(32, 1, 2).box_coder)
    truth = [{"boxes": target[:, 1:] * 80, "labels": target[:, 0].long()}]
    losses = FCOSHead.compute_loss(theirs, truth, outputs, [anchors()], [which])
    overlap = box_iou(prediction.boxes[0, found], target[which[found], 1:]).diagonal()
    quality = F.binary_cross_entropy(prediction.quality[0, found].sigmoid(), overlap, reduction="sum")
    wanted = (losses["classification"] + losses["bbox_regression"]) * len(found) + quality
    assert float(total) == pytest.approx(float(wanted), rel=1e-4)


def test_every_object_has_a_token():
    """One between tokens and smaller than their distance, one around all; rows that are filler have none."""
    f = features(1)
    boxes = torch.tensor([[[0.19, 0.19, 0.22, 0.22], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.6, 0.6]]])
    which = assign(boxes, torch.tensor([[True, True, False]]), f.position, f.mask, 4)[0].view(SIDE, SIDE)
    assert (which == 0).sum() == 1 and which[1:3, 1:3].max() == 0
    assert (which == 1).sum() == 4 and (which[4:6, 4:6] == 1).all()
    assert not (which == 2).any()
    none = assign(boxes, torch.ones(1, 3, dtype=torch.bool), f.position, f.mask & False, 4)
    assert (none == -1).all()


def test_background_unlabelled_and_absent():
    made, f = head().requires_grad_(False), features(4)
    target = torch.full((4, 2, 5), NAN)
    target[0, 0] = torch.tensor([-1.0, 0, 0, 0, 0])  # nothing is there
    target[2:] = torch.tensor([[1, 0.1, 0.1, 0.5, 0.5], [0, 0.6, 0.6, 0.9, 0.9]])
    f.mask[3] = False
    total, count = made.loss(made(f), target, f)
    assert int(count) == 1 + 18
    only = Features(*(x[:1] for x in f))
    background, one = made.loss(made(only), target[:1], only)
    scores = made(only).scores.double()
    by_hand = (0.75 * scores.sigmoid() ** 2 * -torch.log(1 - scores.sigmoid())).sum()
    assert int(one) == 1 and float(background) == pytest.approx(float(by_hand), rel=1e-4)
    third = Features(*(x[2:3] for x in f))
    assert float(total) == pytest.approx(float(background + made.loss(made(third), target[2:3], third)[0]), rel=1e-5)


def logit(chance: float) -> float:
    return float(torch.tensor(chance).logit())


def test_suppression_threshold_and_pixels_by_hand():
    """Scores are square roots of class times IoU; of two that overlap the lower goes, of two classes both stay."""
    boxes = [[0.1, 0.2, 0.3, 0.6], [0.12, 0.2, 0.3, 0.6], [0.1, 0.2, 0.3, 0.6], [0.6, 0.6, 1.2, 0.9], [0, 0, 0.1, 0.1]]
    scores = torch.full((1, 5, 2), -1e4)
    for token, (kind, chance) in enumerate(((0, 0.81), (0, 0.64), (1, 0.49), (1, 0.36), (0, 0.02))):
        scores[0, token, kind] = logit(chance)
    quality = torch.full((1, 5), logit(0.9))
    prediction = Boxes(scores, quality, torch.tensor([boxes]))
    made = head(score_threshold=0.6)
    (row,) = made.decode(prediction, None, meta((0, 0, 200, 100)))
    assert [(one["label"], one["box"]) for one in row["prediction"]] == [
        ("a", [20, 20, 60, 60]),
        ("b", [20, 20, 60, 60]),
    ]
    assert [one["score"] for one in row["prediction"]] == pytest.approx([0.8538, 0.6641], abs=1e-4)
    assert [one["box"] for one in row["low_confidence"]] == [[120, 60, 200, 90], [0, 0, 20, 10]]
    (mirrored,) = made.decode(prediction, None, meta((150, 0, 50, 100)))  # a crop, right and left changed
    assert mirrored["prediction"][0]["box"] == [120, 20, 140, 60]
    (few,) = head(score_threshold=0.6, max_detections=1).decode(prediction, None, meta((0, 0, 200, 100)))
    assert len(few["prediction"]) == 1 and not few["low_confidence"]


def test_which_boxes_are_right_by_hand():
    """Of two boxes of one object the better is; nor one of another class, one too far off, or of a missed object."""
    made = head()

    def seen(label: str, score: float, *box: float) -> dict:
        return {"label": label, "box": list(box), "score": score}

    object_ = [{"label": "a", "box": [0, 0, 10, 10]}, {"label": "b", "box": [20, 0, 30, 10]}]
    told = [seen("a", 0.9, 0, 0, 10, 9), seen("a", 0.8, 0, 0, 10, 10), seen("a", 0.7, 20, 0, 30, 10)]
    faint = [seen("b", 0.4, 20, 0, 30, 4.9), seen("b", 0.3, 20, 0, 30, 5)]
    said = [{"prediction": told, "low_confidence": faint}, {"prediction": [], "low_confidence": []}]
    nothing = Boxes(torch.zeros(1, 1, 2), torch.zeros(1, 1), torch.zeros(1, 1, 4))
    chances, right = nothing.confidences(said, [object_, object_], made.decoding)
    assert [sigmoid(odds) for odds in chances] == pytest.approx([0.9, 0.8, 0.7, 0.4, 0.3])
    assert right == [True, False, False, False, True]
    assert nothing.confidences(said[:1], [[]], made.decoding)[1] == [False] * 5
    revised = nothing.with_confidence(said[0], lambda odds: log_odds(sigmoid(odds) / 1.5), made.decoding)
    assert [one["score"] for one in revised["prediction"]] == [0.6, 0.533333]  # 0.7 is below the threshold now
    assert [len(revised["prediction"]), len(revised["low_confidence"])] == [2, 3]


def test_it_learns_by_heart_and_exports():
    f = features(2)
    tokens = torch.nn.Parameter(f.tokens)
    made = head()
    target = torch.full((2, 3, 5), NAN)
    target[0] = torch.tensor([[0, 0.1, 0.1, 0.4, 0.3], [1, 0.3, 0.2, 0.9, 0.9], [1, 0.05, 0.7, 0.15, 0.8]])
    target[1, 0] = torch.tensor([-1.0, 0, 0, 0, 0])
    optimizer = torch.optim.Adam([*made.parameters(), tokens], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, 900)
    for _ in range(900):  # 300 do on some processors
        prediction = made(f._replace(tokens=tokens))
        total, count = made.loss(prediction, target, f)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        schedule.step()
    fused = f._replace(tokens=tokens.detach())
    assert total / count < 0.1  # BCE is above 0 where an IoU is below 1: 0.06 at 0.99
    prediction = Boxes(*(x.detach() for x in made(fused)))
    places = meta((0, 0, 200, 100), (0, 0, 200, 100))
    first, second = made.decode(prediction, fused, places)
    truth = [{"label": "a", "box": [20, 10, 80, 30]}, {"label": "b", "box": [60, 20, 180, 90]}]
    truth.append({"label": "b", "box": [10, 70, 30, 80]})
    told, wanted = prediction.compare([first, second], [truth, []], made.decoding)
    assert len(first["prediction"]) == 3 and second["prediction"] == []
    overlap = box_iou(told[0]["boxes"][:3], wanted[0]["boxes"])
    assert overlap.amax(0).min() > 0.7
    assert told[0]["labels"][overlap.argmax(0)].tolist() == wanted[0]["labels"].tolist() == [0, 1, 1]
    program = torch.export.export(made.eval(), (features(2, seed=1),)).module()
    assert made.decode(program(fused), fused, places) == [first, second]


def test_of_windows_of_another_input_the_first_counts():
    prediction = head()(random_features(3, 4, 16))
    merged = prediction.merge(torch.tensor([1, 0, 1]), 2)
    assert all(torch.equal(x, y[[1, 0]]) for x, y in zip(merged, prediction))


def test_overlaps_beside_torchvision():
    torch.manual_seed(0)
    one, other = (torch.rand(50, 2, 2).sort(1).values.flatten(1) * SCALE for _ in range(2))
    assert torch.allclose(paired_iou(one, other), box_iou(one, other).diagonal(), atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [{"top_k": 0}, {"score_threshold": 1.5}, {"nms_iou_threshold": -0.1}, {"max_detections": 0}, {"num_layers": -1}],
)
def test_numbers_out_of_range(how):
    (name,) = how
    with pytest.raises(ValueError, match=f"{name}: got {how[name]}, wanted"):
        head(**how)
