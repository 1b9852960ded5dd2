"""Which rows are labelled, worked out by hand."""

import torch

from mm.tensors import labelled
from mm.types import IGNORE

NAN = float("nan")


def test_labelled_rows_of_targets_of_any_shape():
    assert labelled(torch.tensor([1, IGNORE])).tolist() == [True, False]
    assert labelled(torch.tensor([[IGNORE, 0], [IGNORE, IGNORE]])).tolist() == [True, False]
    assert labelled(torch.tensor([[[NAN, NAN]], [[NAN, 0.5]]])).tolist() == [False, True]
    assert labelled(torch.zeros(0)).tolist() == labelled(torch.zeros(0, 3)).tolist() == []
