import pytest
import torch

from mm.contracts.encoder import check_encoder
from mm.encoders.vision.resnet import VisionResNet, stem_stride


def build(size: int = 16, channels: int = 3) -> VisionResNet:
    torch.manual_seed(0)
    return VisionResNet(channels, (size, size), widths=(8, 16), dropout=0.0)


def batch(size: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[True], [True], [False]])
    return torch.randn(3, channels, size, size) * mask[:, :, None, None], mask


@pytest.mark.parametrize("size", [16, 40])
def test_contract(contract, size):
    contract(build(size), *batch(size))


def test_what_mm_check_demands():
    assert [(name, why) for name, why in check_encoder(build()) if why] == []


@pytest.mark.parametrize(
    ("size", "stride"), [((8, 8), 1), ((32, 32), 1), ((33, 20), 2), ((100, 100), 4), ((64, 224), 7)]
)
def test_the_first_stage_has_at_most_32_cells_a_side(size, stride):
    assert stem_stride(size) == stride
    assert max(-(-side // stride) for side in size) <= 32


def test_tokens_are_cells_of_the_last_stage():
    out = build(100)(*batch(100))
    assert out.tokens.shape == (3, 13 * 13, 16)  # 100 -> 25 -> 13
    torch.testing.assert_close(out.position[0, 1], torch.tensor([0.5 / 13, 1.5 / 13]))


def test_learns_four_drawings():
    encoder, head = build(8, 1), torch.nn.Linear(16, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)
    mask = torch.ones(64, 1, dtype=torch.bool)
    for _ in range(30):
        kind = torch.randint(4, (64,))
        x = torch.randn(64, 1, 8, 8) * 0.1
        for i, k in enumerate(kind.tolist()):  # four small drawings
            x[i, 0, 2:6, 4 if k % 2 else slice(2, 6)] += 1.0 if k < 2 else -1.0
        scores = head(encoder(x, mask).pooled)
        loss = torch.nn.functional.cross_entropy(scores, kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (scores.argmax(1) == kind).float().mean() > 0.9
