import pytest
import torch

from mm.encoders.tabular.transformer import TabularTransformer, places_behind

SIZES = [0, 3, 6]
X = torch.tensor(
    [[[0, 0, 0.5], [1, 2, 0], [2, 3, 0], [2, 1, 0]], [[1, 1, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 4]
)
MASK = torch.arange(4) < torch.tensor([4, 2, 0])[:, None]


def build(**how) -> TabularTransformer:
    torch.manual_seed(0)
    usual = {
        "embed_dim": 16,
        "cardinalities": SIZES,
        "num_layers": 2,
        "num_heads": 2,
        "dropout": 0.0,
        "positions": True,
    }
    return TabularTransformer(**usual | {"pool": "token"} | how)


@pytest.mark.parametrize("how", [{}, {"positions": False}, {"pool": "mean"}, {"pool": "last"}])
def test_contract(contract, how):
    contract(build(**how), X, MASK)


def test_places_are_counted_from_a_list_s_end():
    column = torch.tensor([[0, 1, 2, 2, 2, 0], [2, 2, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    mask = torch.arange(6) < torch.tensor([5, 2, 6])[:, None]
    behind = places_behind(column, mask)
    assert behind[0, :5].tolist() == [0, 0, 2, 1, 0]
    assert behind[1, :2].tolist() == [1, 0]
    assert behind[2].tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("positions", [True, False])
def test_order_matters_where_it_is_told(positions):
    encoder = build(positions=positions).eval()
    x = torch.tensor([[[2, i, 0.0] for i in (1, 2, 3)]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    change = (encoder(x, mask).pooled - encoder(x.flip(1), mask).pooled).abs().max()
    assert (change > 1e-4) == positions


def test_the_order_of_columns_does_not():
    encoder = build().eval()
    x, mask = X[:1, :2], MASK[:1, :2]
    torch.testing.assert_close(encoder(x, mask).pooled, encoder(x.flip(1), mask).pooled, atol=1e-5, rtol=1e-4)
