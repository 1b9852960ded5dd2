"""Any torch module as an encoder: contract, saving and loading."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

import mm
from mm.contracts import check_encoder
from mm.contracts.checking import check_part
from mm.encoders.wrapped import TorchvisionModel, WrappedEncoder, token_mask, wrap


class Patches(nn.Module):
    """A convolution with batch norm: a grid of cells."""

    def __init__(self, width: int, channels: int = 3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 4, 4), nn.BatchNorm2d(width), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Words(nn.Module):
    """One vector per text, on which padding has no influence."""

    def __init__(self, width: int):
        super().__init__()
        self.embed = nn.Embedding(257, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return (self.embed(x) * mask.unsqueeze(-1)).sum(1)


class Neighbours(nn.Module):
    """One vector per sample of a sound, computed from its neighbours as well."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv1d(1, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(1)).transpose(1, 2)


def failed(results) -> list:
    return [result for result in results if result[1] is not None]


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: wrap(partial(Patches, width=8), "vision", 8, size=(32, 32)),
        lambda: wrap(partial(Words, width=8), "text", 8, pass_mask=True),
        lambda: wrap(partial(nn.Embedding, num_embeddings=257, embedding_dim=8), "text", 8, max_length=32),
    ],
    ids=["grid", "vector", "tokens"],
)
def test_keeps_the_contract_of_an_encoder(encoder):
    torch.manual_seed(0)
    assert failed(check_encoder(encoder())) == []


def test_tokens_of_a_shorter_time_axis_are_real_where_they_begin_in_the_input():
    mask = torch.arange(12) < torch.tensor([[12], [7], [6], [0]])
    assert token_mask(mask, 4).sum(1).tolist() == [4, 3, 2, 0]
    assert token_mask(mask, 12) is mask


def test_values_of_padding_and_of_absent_rows_do_not_reach_the_module():
    encoder = wrap(partial(Neighbours, width=4), "audio", 4)
    mask = torch.arange(9) < torch.tensor([[9], [5], [0]])
    x = torch.randn(3, 9)
    got, wanted = (encoder(x.masked_fill(~mask, value), mask) for value in (99.0, 0.0))
    assert torch.equal(got.tokens[mask], wanted.tokens[mask])
    assert torch.equal(got.pooled, wanted.pooled)
    seen: list[Tensor] = []
    images = wrap(partial(Patches, width=8), "vision", 8, size=(8, 8))
    images.module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images(torch.full((2, 3, 8, 8), 99.0), torch.tensor([[True], [False]]))
    assert seen[0][0].eq(99).all() and seen[0][1].eq(0).all()


def test_another_width_is_named():
    encoder = wrap(partial(Patches, width=8), "vision", 16)
    with pytest.raises(ValueError, match=r"Patches returned a tensor \(2, 8, 2, 2\), wanted .* embed_dim = 16"):
        encoder(torch.zeros(2, 3, 8, 8), torch.ones(2, 1, dtype=torch.bool))


def pictures(folder: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    for k in range(20):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return [{"vision": str(folder / f"{k}.png"), "target": "ab"[k % 2]} for k in range(20)]


@pytest.mark.parametrize(
    ("factory", "allow"),
    [(partial(squeezenet1_1, num_classes=8), []), (partial(Patches, width=8), [__name__.split(".")[0]])],
    ids=["torchvision", "own"],
)
def test_a_model_with_it_is_trained_saved_and_loaded(tmp_path, factory, allow):
    data = mm.Manifest(pictures(tmp_path), num_workers=0)
    model = mm.build(data.spec, vision=wrap(factory, "vision", 8, size=(32, 32), channels=3), embed_dim=16)
    trained = mm.train(model, data, max_steps=1, progress_bar=False, overrides=["trainer.accelerator=cpu"]).model
    trained.save(tmp_path / "model")
    loaded = mm.load(tmp_path / "model", allow=allow)
    assert isinstance(loaded.model.encoders["vision"], WrappedEncoder)
    wanted, got = trained.model.state_dict(), loaded.model.state_dict()
    assert list(wanted) == list(got)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    picture = {"vision": str(tmp_path / "3.png")}
    assert loaded.predict(picture) == trained.predict(picture)
    if allow:
        with pytest.raises(ValueError, match="allow"):
            mm.load(tmp_path / "model")


def test_a_module_that_does_not_say_how_it_was_built_is_named_when_it_is_saved():
    with pytest.raises(ValueError, match=r"module: .*mm.configured\(Patches"):
        wrap(Patches(width=8), "vision", 8).get_config()


def test_only_the_name_of_a_torchvision_model_is_kept():
    assert TorchvisionModel("squeezenet1_1", arguments={"num_classes": 4}).get_config() == {
        "name": "squeezenet1_1", "pretrained": None, "arguments": {"num_classes": 4},
    }  # fmt: skip
    with pytest.raises(ValueError, match="weights can't be among them"):
        TorchvisionModel("squeezenet1_1", arguments={"weights": "DEFAULT"})
    with pytest.raises(ValueError, match="wanted one of torchvision.models.list_models"):
        TorchvisionModel("os.system")


def test_a_plain_module_is_answered_with_one_message():
    with pytest.raises(ValueError, match=r"Patches .* lacks embed_dim and input.*mm.wrap.*own_encoder"):
        check_part(Patches, {"width": 8})


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="wanted an nn.Module, its class"):
        wrap("resnet18", "vision", 8)
