import pytest
import torch
import torch.nn.functional as F

from mm.encoders.tabular._cells import Cells
from mm.encoders.tabular.mlp import Concat, TabularMLP

SIZES = [0, 3, 4]  # a number, a category and a list
X = torch.tensor(
    [[[0, 0, 0.5], [1, 2, 0], [2, 3, 0], [2, 1, 0]], [[1, 1, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 4]
)
MASK = torch.arange(4) < torch.tensor([4, 2, 0])[:, None]


@pytest.mark.parametrize("pool", ["concat", "mean", "max", "attention"])
def test_contract(contract, pool):
    torch.manual_seed(0)
    contract(TabularMLP(embed_dim=16, cardinalities=SIZES, num_layers=1, dropout=0.0, pool=pool), X, MASK)


def test_cells_by_hand():
    cells = Cells(SIZES, 2)
    column, number, category = cells.column.weight, cells.number.weight, cells.category.weight
    assert cells.category.weight.shape == (7, 2)
    wanted = [column[0] + 0.5 * number[0], column[1] + category[2], column[2] + category[6], column[2] + category[4]]
    torch.testing.assert_close(cells(X[:1])[0], torch.stack(wanted))
    torch.testing.assert_close(cells(X[1:2])[0, 1], column[2])  # what training rows do not have says nothing


def test_columns_side_by_side():
    torch.manual_seed(0)
    pool = Concat(3, 2, 0.0)
    pool.mlp = torch.nn.Identity()
    tokens = torch.randn(3, 4, 2)
    got = pool(tokens, MASK, X[..., 0].long())
    torch.testing.assert_close(got[0], torch.cat([tokens[0, 0], tokens[0, 1], tokens[0, 2:].mean(0)]))
    torch.testing.assert_close(got[1], F.pad(torch.cat([tokens[1, 0], tokens[1, 1]]), (2, 0)))
    assert not got[2].any()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="pool: got 'sum'"):
        TabularMLP(embed_dim=4, cardinalities=SIZES, num_layers=1, dropout=0.0, pool="sum")
    with pytest.raises(ValueError, match="cardinalities: got none"):
        TabularMLP(embed_dim=4, cardinalities=[], num_layers=1, dropout=0.0, pool="mean")
