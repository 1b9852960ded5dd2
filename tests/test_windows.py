"""What rows and windows have to do with each other, worked out by hand."""

import torch

from mm.types import Features
from mm.windows import directions, first_windows, side_by_side, windows_of

ROW = torch.tensor([2, 0, 2, 1, 0])  # of five windows


def test_the_first_window_of_each_row():
    assert first_windows(ROW, 3).tolist() == [1, 3, 0]


def features(*present: bool) -> Features:
    mask = torch.tensor(present).unsqueeze(1)
    return Features(
        torch.zeros(len(present), 1, 2), mask, torch.zeros(len(present), 2), torch.zeros(len(present), 1, 3)
    )


def test_windows_tell_of_their_row_by_a_part_of_its_inputs():
    """Row 2 has the sound in its second window only, row 0 in none, row 1 in its only one."""
    inputs = {"audio": features(False, False, True, True, False), "text": features(*[True] * 5)}
    seen, telling = windows_of(inputs, ["audio"], ROW)
    assert seen.tolist() == [False, False, True, True, False]
    assert telling.tolist() == [False, True, True, True, True]  # both of row 0, which has nothing better
    seen, telling = windows_of(inputs, ["audio", "text"], ROW)
    assert seen.all() and telling.all()


def test_tokens_of_a_row_side_by_side():
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]])
    assert side_by_side(tokens, ROW, 3, 3, -1).tolist() == [
        [3, 4, -1, 9, 0, -1],
        [7, 8, -1, -1, -1, -1],
        [1, 2, -1, 5, 6, -1],
    ]


def test_directions_of_rows():
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    rows, mean, present = directions(unit, torch.tensor([True, True, True, False, True]), ROW)
    assert rows.tolist() == [0, 1, 2]
    torch.testing.assert_close(mean, torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5**0.5, 0.5**0.5]]))
    assert present.tolist() == [True, False, True]
