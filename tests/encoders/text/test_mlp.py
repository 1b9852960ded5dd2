"""A bag is a mean: beside numpy, and blind to what lies further apart than an n-gram."""

import numpy as np
import pytest
import torch

from mm.encoders.text.hashed_ngrams import hashed_ngrams
from mm.encoders.text.mlp import TextMLP


def build(**changed) -> TextMLP:
    torch.manual_seed(0)
    given = {"embed_dim": 6, "num_layers": 2, "ngram": 2, "num_hash_buckets": 50, "dropout": 0.1, "max_length": None}
    return TextMLP(**given | changed).eval()


def test_contract(contract, text_batch):
    contract(build(embed_dim=16, dropout=0.0), *text_batch)


def test_padding(padding):
    padding(build(), torch.randint(1, 257, (1, 20)), 11, garbage=77)


def test_it_is_an_mlp_of_the_mean():
    encoder, x = build(), torch.randint(1, 257, (1, 9))
    weight = {name: p.detach().numpy() for name, p in encoder.named_parameters()}
    grams = hashed_ngrams(x, 2, 50)[0].numpy()
    bag = np.mean([weight["embed.weight"][bucket] for pair in grams for bucket in pair], axis=0)
    for layer in (0, 3):
        bag = np.maximum(weight[f"mlp.{layer}.weight"] @ bag + weight[f"mlp.{layer}.bias"], 0)
    got = encoder(x, torch.ones(1, 9, dtype=torch.bool))
    np.testing.assert_allclose(got.pooled[0].detach().numpy(), bag, rtol=1e-4, atol=1e-6)
    assert got.tokens.shape == (1, 1, 6)


def test_single_bytes_have_no_order():
    x = torch.randint(1, 257, (1, 9))
    mask = torch.ones(1, 9, dtype=torch.bool)
    torch.testing.assert_close(build(ngram=1)(x, mask).pooled, build(ngram=1)(x.flip(1), mask).pooled)
    assert not torch.allclose(build()(x, mask).pooled, build()(x.flip(1), mask).pooled)


def test_without_a_layer():
    with pytest.raises(ValueError, match="num_layers: got 0, wanted at least 1"):
        build(num_layers=0)
