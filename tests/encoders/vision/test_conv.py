import pytest
import torch

from mm.encoders.vision.conv import VisionConv


def build(pool: str = "mean", channels: int = 1) -> VisionConv:
    torch.manual_seed(0)
    return VisionConv(channels, widths=[8, 16, 16], depth=1, groups=4, pool=pool)


def batch(size: int, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[True], [True], [False]])
    return torch.randn(3, channels, size, size) * mask[:, :, None, None], mask


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_contract(contract, pool):
    contract(build(pool), *batch(8))


@pytest.mark.parametrize(("size", "grid"), [(8, 2), (28, 7), (56, 14)])
def test_grid(size, grid):
    out = build(channels=3)(*batch(size, 3))
    assert out.tokens.shape == (3, grid * grid, 16)
    torch.testing.assert_close(out.position[0, 1], torch.tensor([0.5 / grid, 1.5 / grid]))  # the second cell of a row


def test_tokens_lie_where_the_image_is():
    x = torch.zeros(1, 1, 28, 28)
    bright = x.clone()
    bright[..., 2:6, 22:26] = 5.0  # top right; group norm spreads its brightness, but evenly
    encoder = build().eval()
    mask = torch.ones(1, 1, dtype=torch.bool)
    change = (encoder(bright, mask).tokens - encoder(x, mask).tokens).square().sum(-1)[0]
    y, x = encoder(bright, mask).position[0, change.argmax()]
    assert y < 0.4 and x > 0.6


def test_learns_four_drawings():
    encoder, head = build(), torch.nn.Linear(16, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)
    mask = torch.ones(64, 1, dtype=torch.bool)
    for _ in range(60):
        kind = torch.randint(4, (64,))
        x = torch.randn(64, 1, 8, 8) * 0.1
        for i, k in enumerate(kind.tolist()):  # four small drawings
            x[i, 0, 2:6, 4 if k % 2 else slice(2, 6)] += 1.0 if k < 2 else -1.0
        loss = torch.nn.functional.cross_entropy(head(encoder(x, mask).pooled), kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_mistakes():
    with pytest.raises(ValueError, match="widths: got 10"):
        VisionConv(1, [8, 10], 0, 4, "mean")
