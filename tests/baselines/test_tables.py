import numpy as np
import torch

from mm.baselines.tables import MOST_CATEGORIES, sequence_statistics, table_features
from mm.types import ColumnData, Features

COLUMNS = (
    ColumnData(name="age", kind="number"),
    ColumnData(name="city", kind="category", classes=("Bonn", "Ulm")),
    ColumnData(name="tags", kind="list", classes=("a", "b", "c")),
)


def test_cells_become_numbers_indices_and_counts():
    rows = [
        torch.tensor([(0, 0, 1.5), (1, 2, 0.0), (2, 3, 0.0), (2, 3, 0.0), (2, 1, 0.0)]),
        torch.tensor([(1, 0, 0.0)]),  # no age, an unknown city, no tags
        torch.tensor([(1, 2, 0.0), (2, 2, 0.0)]),
    ]
    values, categories = table_features(rows, COLUMNS, np.array([True, False, True]))
    assert categories == [1]
    np.testing.assert_array_equal(values[:, 0], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(values[:, 1], [1, 0, 1])  # the most frequent city first; 0: any other
    np.testing.assert_array_equal(values[:, 2:], [[2, 1, 0], [0, 0, 0], [0, 0, 1]])  # c, a, b


def test_rare_categories_of_the_training_rows_are_one():
    names = tuple(map(str, range(MOST_CATEGORIES + 50)))
    column = ColumnData(name="id", kind="category", classes=names)
    rows = [torch.tensor([(0, i + 1, 0.0)]) for i in range(len(names))] + [torch.tensor([(0, len(names), 0.0)])]
    values, _ = table_features(rows, [column], np.ones(len(rows), dtype=bool))
    assert values.max() == MOST_CATEGORIES
    assert values[-1] == 1  # it occurs twice
    assert (values == 0).sum() == 50


def test_sequences_become_vectors_of_one_length():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert sequence_statistics(x, True).tolist() == [2, 4, 1, 2, 1, 2, 3, 6]
    assert sequence_statistics(x, False).tolist() == [1, 2, 3, 6]
    features = Features(x, torch.ones(2, dtype=torch.bool), torch.tensor([7.0, 8.0]), torch.zeros(2, 2))
    assert sequence_statistics(features, True).tolist() == [7, 8]
