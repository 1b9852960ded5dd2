"""What is hidden has no influence, what counts is what was hidden, and of what lies nearest."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mm.encoders.vision.conv import VisionConv
from mm.fusion.sum import SumFusion
from mm.model import MultimodalModel
from mm.tasks.objectives._blocks import BlockDecoder, draw
from mm.tasks.objectives.masked_patch import MaskedPatchObjective, centres
from mm.tasks.pretraining import Pretraining
from mm.types import Batch, Features

X = torch.rand(3, 1, 9, 13, generator=torch.Generator().manual_seed(0))  # two blocks down, three across, and a rest


def task(**how) -> Pretraining:
    torch.manual_seed(0)
    encoder = VisionConv(channels=1, widths=[8, 8], depth=0, groups=4, pool="mean")
    model = MultimodalModel({"vision": encoder}, SumFusion(inputs=["vision"]), {}, 8)
    return Pretraining(model, objectives={"patch": partial(MaskedPatchObjective, **({"patch": 4, "ratio": 0.5} | how))})


def batch(x: torch.Tensor = X, present: tuple[bool, ...] = (True, True, True)) -> Batch:
    return Batch({"vision": x}, {"vision": torch.tensor(present).unsqueeze(1)}, {}, torch.arange(3), {})


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("ratio", "wanted"), [(0.01, 1), (0.5, 5), (0.6, 6), (0.99, 9)])
def test_hides_its_part_and_never_all(ratio, wanted):
    hidden = draw(torch.ones(200, 10, dtype=torch.bool), ratio, drawn())
    assert (hidden.sum(1) == wanted).all()
    assert (hidden.float().mean(0) - wanted / 10).abs().max() < 0.15  # every block alike


def test_counts_the_hidden_blocks_of_present_rows():
    """A decoder that says nothing but zeros is wrong by what the blocks hold."""
    made = task().requires_grad_(False)
    for parameter in made.objectives["patch"].decoders["vision"].mlp[2].parameters():
        parameter.data.zero_()
    ((total, count),) = made.measure(batch(present=(True, False, True)), drawn()).values()
    hidden = draw(torch.ones(3, 6, dtype=torch.bool), 0.5, drawn())
    wanted = 0.0
    for row in (0, 2):
        for block in range(6):
            if hidden[row, block]:
                y, x = 4 * (block // 3), 4 * (block % 3)
                wanted += float(X[row, 0, y : y + 4, x : x + 4].mean())
    assert float(total) == pytest.approx(wanted, rel=1e-5)
    assert int(count) == 6


def test_what_is_hidden_has_no_influence():
    made = task().eval()
    hidden = draw(torch.ones(3, 6, dtype=torch.bool), 0.5, drawn())
    away = F.pad(F.interpolate(hidden.view(3, 1, 2, 3).float(), scale_factor=4), (0, 1, 0, 1)).bool()
    seen = []
    made.objectives["patch"].decoders["vision"].register_forward_hook(lambda _, __, told: seen.append(told))
    for x in (X, torch.where(away, torch.rand_like(X), X), torch.where(away, X, torch.rand_like(X))):
        made.measure(batch(x), drawn())
    assert torch.equal(seen[0], seen[1])
    assert (seen[0] - seen[2]).abs().max() > 1e-3


def test_a_block_is_told_from_the_token_that_lies_nearest():
    places = centres(8, 8, 4, 2, 2)
    assert places.tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    position = torch.tensor([[[0.2, 0.2], [0.9, 0.9], [0.25, 0.75]]])
    tokens = torch.eye(3).unsqueeze(0)
    decoder = BlockDecoder(3, 3)
    decoder.mlp = torch.nn.Identity()
    for parameter in decoder.offset.parameters():
        parameter.data.zero_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = decoder(Features(tokens, mask, tokens[:, 0], position), places).argmax(2)
    assert found.tolist() == [[0, 2, 0, 1]]  # the third lies as far from the first as it gets, and farther from others
    mask[0, 2] = False
    assert decoder(Features(tokens, mask, tokens[:, 0], position), places).argmax(2)[0, 1] != 2


def test_a_smaller_patch_has_more_blocks():
    ((_, count),) = task(patch=1, ratio=0.5).measure(batch(), drawn()).values()
    assert int(count) == 3 * round(0.5 * 9 * 13)
    with pytest.raises(ValueError, match=r"got patch=9, but the pictures of 'vision' are 9x13 pixels"):
        task(patch=9).measure(batch(), drawn())
    with pytest.raises(ValueError, match=r"got patch=4, ratio=1.0, wanted a patch from 1 and a ratio in 0..1"):
        task(ratio=1.0)


def test_every_weight_learns():
    made = task()
    made.measure(batch(), drawn())["patch"][0].backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())
