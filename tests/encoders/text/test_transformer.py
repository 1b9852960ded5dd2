import pytest
import torch

from mm.encoders.text.transformer import TextTransformer
from mm.layers import sinusoid


def build(pool: str = "mean", dropout: float = 0.0) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(embed_dim=16, num_layers=2, num_heads=2, dropout=dropout, max_length=None, pool=pool)


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


def test_a_small_table_becomes_tokens_of_deviation_one():
    """As the positions beside them; tables that begin with one learn several times slower."""
    encoder, seen = build(), []
    encoder.drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = torch.arange(1, 257)[None]
    with torch.no_grad():
        encoder(ids, ids.bool())
    tokens = seen[0] - sinusoid(torch.arange(256), 16)
    assert float(tokens.std()) == pytest.approx(1.0, abs=0.05)
    assert float(encoder.embed.weight.detach().std()) == pytest.approx(0.25, abs=0.02)
