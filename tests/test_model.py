"""The centre: absence is the mask, features pass through, windows merge."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import conf
from mm.contracts._demands import compiles, exports
from mm.encoders.vision.conv import VisionConv
from mm.fusion.concat import ConcatFusion
from mm.heads.classification import ClassificationHead
from mm.heads.regression import RegressionHead
from mm.model import MultimodalModel
from mm.predictions import Categorical, Scalar
from mm.tensors import mask_inputs
from mm.types import Batch, Features, Output

FOLDER = Path(conf.__path__[0]) / "model/fusion"
FUSIONS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def build(names=("left", "right"), share=None, fusion=None) -> MultimodalModel:
    torch.manual_seed(0)
    own = [n for n in names if n not in (share or {})]
    return MultimodalModel(
        {n: VisionConv(channels=1, widths=[4, 6], depth=0, groups=2, pool="mean") for n in own},
        fusion or ConcatFusion(inputs=list(names), embed_dim=8),
        {"digit": ClassificationHead(classes=["a", "b", "c"], embed_dim=8)},
        embed_dim=8,
        shared_encoders=share,
    ).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    images = {"left": torch.randn(4, 1, 8, 8), "right": torch.randn(4, 1, 8, 8)}
    masks = {"left": torch.ones(4, 1, dtype=torch.bool), "right": torch.tensor([[True], [False], [True], [False]])}
    return images, masks


def test_absent_input_has_no_influence(batch):
    images, masks = batch
    model = build()
    before = model(images, masks).predictions["digit"].logits
    after = (
        model(images | {"right": images["right"] + 5 * ~masks["right"][:, :, None, None]}, masks)
        .predictions["digit"]
        .logits
    )
    torch.testing.assert_close(after, before)
    changed = model(images | {"left": images["left"] + 5}, masks).predictions["digit"].logits
    assert not torch.allclose(changed, before)


class Logits(nn.Module):
    """What a model says, as one tensor."""

    def __init__(self, model: MultimodalModel):
        super().__init__()
        self.model = model

    def forward(self, images: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(images, masks).predictions["digit"].logits


@pytest.mark.parametrize("fusion", ["concat", "towers", "transformer"])  # each alone: tests/test_contracts.py
def test_the_whole_forward_exports_and_has_no_graph_break(fusion):
    torch.manual_seed(2)
    names = ["left", "middle", "right"]
    cfg = OmegaConf.create({"model": {"embed_dim": 8, "fusion": OmegaConf.load(FOLDER / f"{fusion}.yaml")}})
    cfg.model.fusion.inputs = names
    model = Logits(build(names, fusion=instantiate(cfg.model.fusion)))

    def drawn() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        masks = torch.rand(3, 4, 1) < 0.6
        return {n: torch.randn(4, 1, 8, 8) for n in names}, dict(zip(names, masks))

    exports(model, drawn(), drawn())
    with torch.no_grad():
        compiles(model, drawn())


def test_masked_features_equal_absent_inputs(batch):
    images, masks = batch
    model = build()
    features = model.encode(images, masks)
    alone = model.predict(mask_inputs(features, ["left"])).predictions["digit"].logits
    absent = model(images, masks | {"right": torch.zeros(4, 1, dtype=torch.bool)}).predictions["digit"].logits
    torch.testing.assert_close(alone, absent)


def test_features_pass_straight_through(batch):
    images, masks = batch
    model = build()
    computed = {name: model.encoders[name](images[name], masks[name]) for name in images}
    model.encoders.requires_grad_(False)
    torch.testing.assert_close(
        model(computed, masks).predictions["digit"].logits,
        model(images, masks).predictions["digit"].logits,
        rtol=0,
        atol=0,
    )


def test_shared_encoder_gives_both_inputs_the_same(batch):
    images, masks = batch
    model = build(share={"right": "left"})
    assert list(model.encoders) == list(model.projections) == ["left"]
    features = model.encode({"left": images["left"], "right": images["left"]}, masks | {"right": masks["left"]})
    torch.testing.assert_close(features["left"].tokens, features["right"].tokens)


def test_shared_encoder_must_exist():
    with pytest.raises(ValueError, match=r"model.shared_encoders.right: got 'middle', wanted one of left"):
        build(share={"right": "middle"})


def merge(logits, row):
    """By a model with one head, of three windows that are numbered in fused, targets and meta."""
    number = torch.arange(3)
    fused = Features(torch.zeros(3, 1, 4), torch.ones(3, 1).bool(), number[:, None].expand(3, 4), torch.zeros(3, 1, 2))
    masks = {"text": torch.ones(3, 2, dtype=torch.bool)}
    meta = {"text/characters": number[:, None] + 10, "text/words": torch.stack([number, number + 3], 1)}
    batch = Batch({}, masks, {"digit": number}, torch.tensor(row), meta)
    return build().merge(Output({"digit": Categorical(logits)}, fused, {}), batch)


def test_windows_of_a_row_are_merged():
    logits = torch.tensor([[2.0, 0, 0], [0, 3.0, 0], [0, 0, 1.0]])
    merged = merge(logits, [7, 7, 3])
    assert merged.row.tolist() == [3, 7]
    assert merged.first.tolist() == merged.targets["digit"].tolist() == merged.fused.pooled[:, 0].tolist() == [2, 0]
    assert merged.meta["text/characters"].tolist() == [[12], [10]]
    assert merged.meta["text/words"].tolist() == [[2, 5, -1, -1], [0, 3, 1, 4]]  # of all windows
    torch.testing.assert_close(merged.predictions["digit"].logits[0].softmax(0), logits[2].softmax(0))
    by_hand = (logits[0].log_softmax(0) + logits[1].log_softmax(0)) / 2
    torch.testing.assert_close(merged.predictions["digit"].logits[1].softmax(0), by_hand.softmax(0))


def test_rows_of_one_window_stay_in_their_order():
    logits = torch.randn(3, 3)
    merged = merge(logits, [9, 2, 5])
    assert merged.row.tolist() == [9, 2, 5]
    assert merged.first.tolist() == merged.targets["digit"].tolist() == [0, 1, 2]
    torch.testing.assert_close(merged.predictions["digit"].logits, logits)


def test_only_modules_are_parameters():
    model = build()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "encoders",
        "projections",
        "fusion",
        "heads",
    }
    assert isinstance(model.encoders, nn.ModuleDict)


def test_windows_are_merged_in_full_precision_under_autocast():
    """bfloat16 has steps of 8 between 1,024 and 2,048."""
    head = RegressionHead(embed_dim=8, mean=0.0, std=1.0, criterion="mse")
    model = MultimodalModel({}, ConcatFusion(inputs=["left"], embed_dim=8), {"size": head}, embed_dim=8)
    mask = torch.ones(3, 1, dtype=torch.bool)
    fused = Features(torch.randn(3, 1, 8), mask, torch.randn(3, 8), torch.zeros(3, 1, 2))
    prediction = torch.tensor([2013.4, 2013.4, 1987.0])
    batch = Batch({}, {"left": mask}, {"size": torch.zeros(3)}, torch.tensor([0, 0, 1]), {})
    with torch.autocast("cpu", torch.bfloat16):
        merged = model.merge(Output({"size": Scalar(prediction)}, fused, {}), batch)
    torch.testing.assert_close(merged.predictions["size"].value, torch.tensor([2013.4, 1987.0]))
