import math

import pytest
import torch

from mm.transforms.windows import check_limit, limit, room


@pytest.mark.parametrize("length", [5, 6, 7, 10, 11, 12, 40])
@pytest.mark.parametrize("most", [1, 4, 5])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_everything_overlapping(length: int, most: int, overlap: float) -> None:
    x = torch.arange(length)
    windows, cut, *_ = limit(x, most, "window", overlap, "tokens")
    assert not cut
    if length <= most:
        assert len(windows) == 1
        return
    step = max(1, round(most * (1 - overlap)))
    assert [int(w[0]) for w in windows[:-1]] == list(range(0, step * (len(windows) - 1), step))
    assert windows[-1].tolist() == x[-most:].tolist()  # not the few that are left over
    assert len(windows) == math.ceil((length - most) / step) + 1  # none that lies inside another
    assert torch.equal(torch.cat(windows).unique(), x)
    assert all(len(w) == most for w in windows)


def test_truncate_counts_and_keeps_what_fits() -> None:
    windows, cut, *_ = limit(torch.arange(9), 4, "truncate", 0.25, "tokens")
    assert cut
    assert windows[0].tolist() == [0, 1, 2, 3]
    assert len(windows) == 1
    windows, cut, *_ = limit(torch.arange(9), 4, "truncate_left", 0.25, "tokens")
    assert cut
    assert [w.tolist() for w in windows] == [[5, 6, 7, 8]]
    for most in (None, 9, 12):
        windows, cut, *_ = limit(torch.arange(9), most, "error", 0.25, "tokens")
        assert not cut
        assert len(windows[0]) == 9


def test_special_tokens_take_their_place() -> None:
    assert len(limit(torch.arange(9), 6, "truncate", 0.25, "tokens", extra=2).windows[0]) == 4
    with pytest.raises(ValueError, match="11 tokens are too long, at most 10 are read"):
        limit(torch.arange(9), 10, "error", 0.25, "tokens", extra=2)
    assert not limit(torch.arange(8), 10, "error", 0.25, "tokens", extra=2).cut


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, "trunc", 0.2), "overflow: got 'trunc', wanted one of truncate, truncate_left, error, window"),
        ((4, "window", 1.0), "window_overlap: got 1.0"),
        ((4, "window", -0.1), "window_overlap"),
        ((0, "window", 0.1), "max_length: got 0, wanted at least 1"),
        ((2, "window", 0.1, 2), r"max_length: got 2, wanted at least 3 \(2 are special tokens\)"),
    ],
)
def test_wrong_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_limit(*arguments)


@pytest.mark.parametrize("overflow", ["truncate", "truncate_left", "window"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("extra", [0, 2])
def test_room_is_what_windows_and_their_padding_take(overflow: str, overlap: float, extra: int) -> None:
    for length in range(1, 40):
        for most in (None, 5, 8):
            for multiple in (1, 4):
                windows = limit(torch.arange(length), most, overflow, overlap, "tokens", extra).windows
                longest = max(len(w) for w in windows) + extra
                padded = next(n for n in range(longest, 1000) if n % multiple == 0)
                assert room(length + extra, most, overflow, overlap, multiple, extra) == len(windows) * padded
