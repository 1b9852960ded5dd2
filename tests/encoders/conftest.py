"""What every encoder promises, checked from outside."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mm.types import Features

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)


def loss(features: Features) -> Tensor:
    """A scalar that reads every real token and the pooled vectors."""
    weight = torch.linspace(0.5, 1.5, features.pooled.shape[-1])
    tokens = (features.tokens * features.mask.unsqueeze(-1) * weight).square().sum()
    return tokens + (features.pooled * weight).square().sum()


def check(encoder: nn.Module, x: Tensor, mask: Tensor, compiles: bool = True) -> None:
    """Shapes, absence, gradients, bf16, export and compile; the last row must be absent, its x zeros."""
    assert not mask[-1].any() and not x[-1].any()
    encoder.eval()
    out = encoder(x, mask)
    batch, tokens = out.mask.shape
    assert out.mask.dtype == torch.bool
    assert out.tokens.shape == (batch, tokens, encoder.embed_dim)
    assert out.pooled.shape == (batch, encoder.embed_dim)
    assert out.position.shape == (batch, tokens, 2)
    assert out.position[out.mask].min() >= 0 and out.position.max() <= 1
    assert out.tokens.isfinite().all()
    assert not out.mask[-1].any() and (out.pooled[-1] == 0).all() and out.mask[:-1].any(1).all()

    for training in [False, True]:
        encoder.train(training)
        full, rest = encoder(x, mask), encoder(x[:-1], mask[:-1])
        torch.testing.assert_close(full.pooled[:-1], rest.pooled, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(full.tokens[:-1], rest.tokens, atol=1e-5, rtol=1e-4)
        assert full.tokens.isfinite().all()

    encoder.train()
    for field in ("pooled", "tokens"):
        encoder.zero_grad()
        out = encoder(x, mask)
        picked = loss(out) - loss(out._replace(pooled=0 * out.pooled)) if field == "pooled" else loss(out)
        picked.backward()
        for name, p in encoder.named_parameters():
            if p.requires_grad and not (name.startswith("pool.") and field == "tokens"):
                assert p.grad is not None and p.grad.isfinite().all(), f"{name} gets no gradient through {field}"

    encoder.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = encoder(x, mask)
    assert half.tokens.isfinite().all() and (half.pooled[-1] == 0).all()
    with torch.no_grad():
        whole = encoder(x, mask)
        exported = torch.export.export(encoder, (x, mask)).module()(x, mask)
        torch.testing.assert_close(exported.tokens, whole.tokens, atol=1e-4, rtol=1e-3)
        if compiles:
            torch._dynamo.reset()
            compiled = torch.compile(encoder, fullgraph=True, backend="eager")(x, mask)
            torch.testing.assert_close(compiled.pooled, whole.pooled, atol=1e-4, rtol=1e-3)


def check_padding(encoder: nn.Module, x: Tensor, length: int, garbage: float = 0.0) -> None:
    """The first `length` steps alone give what they give behind padding. x (1, L), its tail is filled with `garbage`"""
    encoder.eval()
    mask = torch.arange(x.shape[1])[None] < length
    x = torch.where(mask, x, torch.tensor(garbage, dtype=x.dtype))
    with torch.no_grad():
        short, long = encoder(x[:, :length], mask[:, :length]), encoder(x, mask)
    torch.testing.assert_close(long.pooled, short.pooled, atol=1e-5, rtol=1e-4)
    assert short.mask.sum() == long.mask.sum()
    torch.testing.assert_close(long.tokens[long.mask], short.tokens[short.mask], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(long.position[long.mask], short.position[short.mask])


@pytest.fixture
def contract() -> Callable[..., None]:
    torch.manual_seed(0)
    return check


@pytest.fixture
def padding() -> Callable[..., None]:
    torch.manual_seed(0)
    return check_padding


@pytest.fixture
def text_batch() -> tuple[Tensor, Tensor]:
    """Ids (3, 12) of lengths 12, 7 and 0."""
    mask = torch.arange(12)[None] < torch.tensor([12, 7, 0])[:, None]
    return torch.randint(1, 257, (3, 12), generator=torch.Generator().manual_seed(1)) * mask, mask


@pytest.fixture
def audio_batch() -> tuple[Tensor, Tensor]:
    """Waveforms (3, 2400) of lengths 2400, 1500 and 0."""
    mask = torch.arange(2400)[None] < torch.tensor([2400, 1500, 0])[:, None]
    return torch.randn(3, 2400, generator=torch.Generator().manual_seed(1)).mul(0.1) * mask, mask


@pytest.fixture
def minilm() -> str:
    """The folder of a real sentence encoder."""
    folder = Path(os.environ.get("MM_DATA", "data")).parent / "models" / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        pytest.skip("no all-MiniLM-L6-v2 in the folder `models` beside $MM_DATA")
    return str(folder)
