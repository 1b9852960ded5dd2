import pytest
import torch

from mm.encoders.text.transformer import TextTransformer


def build(pool: str = "mean", dropout: float = 0.0) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(embed_dim=16, layers=2, heads=2, dropout=dropout, max_length=None, pool=pool)


def test_contract(contract, text_batch):
    contract(build(), *text_batch)


@pytest.mark.parametrize("pool", ["mean", "first", "last", "max", "attention"])
def test_padding(padding, pool):
    padding(build(pool), torch.randint(1, 257, (1, 20)), 11, garbage=77)


def test_order_matters():
    encoder = build().eval()
    ids = torch.arange(1, 9)[None]
    mask = torch.ones(1, 8, dtype=torch.bool)
    assert (encoder(ids, mask).pooled - encoder(ids.flip(1), mask).pooled).abs().max() > 1e-3


def test_takes_any_length():
    ids = torch.ones(1, 3000, dtype=torch.long)
    assert build()(ids, ids.bool()).tokens.isfinite().all()
