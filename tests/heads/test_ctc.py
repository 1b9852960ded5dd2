"""Losses and decoding beside a sum over all alignments, padding without influence, and learning by heart."""

import itertools
import math

import pytest
import torch
from heads.by_heart import learn

from mm.heads.ctc import CTCHead
from mm.predictions import Calibration, Transcript
from mm.predictions.transcript import beam_search, greedy
from mm.types import IGNORE, Features


def head(**how) -> CTCHead:
    torch.manual_seed(0)
    return CTCHead(classes=["a", "b"], input="audio", separator="", embed_dim=8, **how)


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def chances(scores: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every sequence -> the sum of the probabilities of its alignments."""
    found: dict[tuple[int, ...], float] = {}
    blank = scores.shape[1] - 1
    for path in itertools.product(range(blank + 1), repeat=len(scores)):
        chance = float(scores[range(len(scores)), path].sum().exp())
        found[collapse(path, blank)] = found.get(collapse(path, blank), 0) + chance
    return found


@pytest.mark.parametrize("seed", range(8))
def test_decoding_beside_all_alignments(seed):
    scores = (2 * torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    every = chances(scores)
    assert sum(every.values()) == pytest.approx(1, abs=1e-5)
    assert tuple(beam_search(scores, 200)) == max(every, key=every.__getitem__)
    assert tuple(greedy(scores)) == collapse(tuple(scores.argmax(-1).tolist()), 2)


@pytest.mark.parametrize("seed", range(4))
def test_how_probable_a_text_is_beside_all_alignments(seed):
    made = head(beam_width=1 + 3 * (seed % 2))
    logits = 2 * torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(seed))
    logits[2] = torch.tensor([-1e4, -1e4, 0])  # an absent sound
    prediction = Transcript(logits)
    said = made.decode(prediction, fused([5, 5, 0], 5), {})
    for row, told in zip(logits, said, strict=True):
        every = chances(row.log_softmax(-1))
        chance = every[tuple("ab".index(x) for x in told["prediction"])]
        assert math.exp(told["log_probability"]) == pytest.approx(chance, abs=1e-5)
        assert told["probability"] == pytest.approx(chance ** (1 / max(1, len(told["prediction"]))), abs=1e-5)
    told, right = prediction.confidences(said, [said[0]["prediction"], "no", ""], made.decoding)
    chance = math.exp(said[1]["log_probability"])
    assert told[1] == pytest.approx(math.log(chance / (1 - chance)))
    assert right == [True, False, True]


@pytest.mark.parametrize("tokens", [600, 6000])
def test_how_probable_a_long_text_is(tokens):
    """float32 holds nothing below exp(-103), float64 nothing below exp(-745)."""
    made = head()
    logits = torch.zeros(1, tokens, 3)
    logits[0, torch.arange(tokens), torch.arange(tokens) % 2] = 2.0  # ababab...
    prediction = Transcript(logits)
    row = made.decode(prediction, fused([tokens], tokens), {})[0]
    least = tokens * math.log(math.exp(2) / (math.exp(2) + 2))  # of one alignment of several
    assert least * (1 + 1e-4) <= row["log_probability"] < -100
    assert 0.78 < row["probability"] < 1  # exp(2) / (exp(2) + 2) is 0.787
    (odds,), _ = prediction.confidences([row], ["a"], made.decoding)
    assert odds == pytest.approx(row["log_probability"])
    revised = prediction.with_confidence(row, Calibration(temperature=200.0, bias=1.0).scale_log_odds, made.decoding)
    assert revised["log_probability"] == pytest.approx(math.log(revised["probability"]))
    assert revised["probability"] == pytest.approx(1 / (1 + math.exp(-odds / 200 - 1)))
    unchanged = prediction.with_confidence(row, Calibration().scale_log_odds, made.decoding)
    assert unchanged["log_probability"] == pytest.approx(odds)


def test_a_beam_finds_what_the_best_path_misses():
    """Graves 2006: two blanks are the best path, 0.36, but `a` has three, 0.64."""
    scores = torch.tensor([[0.4, 0.0, 0.6], [0.4, 0.0, 0.6]]).log()
    assert greedy(scores) == []
    assert beam_search(scores, 4) == [0]


def fused(lengths: list[int], most: int) -> Features:
    mask = torch.arange(most) < torch.tensor(lengths).unsqueeze(1)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(len(lengths), 5, 8, generator=generator)
    tokens = torch.cat([tokens, torch.full((len(lengths), most - 5, 8), 1e3)], dim=1)
    return Features(tokens, mask, tokens[:, 0], torch.zeros(len(lengths), most, 2))


def test_loss_is_the_sum_over_all_alignments():
    made, target = (
        head().requires_grad_(False),
        torch.tensor([[0, 1, IGNORE], [1, 1, 0], [IGNORE] * 3, [0, IGNORE, IGNORE]]),
    )
    wanted = 0.0
    for most in (5, 9):  # padding changes nothing
        f = fused([5, 5, 5, 0], most)
        prediction = made(f)
        total, count = made.loss(prediction, target, f)
        if not wanted:
            scores = made.linear(f.tokens[:, :5]).detach().log_softmax(-1)
            wanted = -sum(
                torch.tensor(chances(scores[row])[units]).log() for row, units in ((0, (0, 1)), (1, (1, 1, 0)))
            )
        assert float(total) == pytest.approx(float(wanted), rel=1e-4)
        assert int(count) == 5  # the third is unlabelled, and in the last nothing is heard
    assert made.decode(prediction, f, {})[3]["prediction"] == ""


def test_more_symbols_than_tokens():
    f = fused([5, 2], 5)
    with pytest.raises(
        ValueError, match=r"1 of 2 rows have fewer tokens of 'audio' than .*: 2 tokens for the 2 symbols of 'bb';"
    ):
        head().loss(head()(f), torch.tensor([[0, 0], [1, 1]]), f)  # a blank is needed between
    total, _ = head().loss(head()(f), torch.tensor([[0, 0], [1, 0]]), f)
    assert total.isfinite()
    with pytest.raises(ValueError, match="beam_width: got 0, wanted at least 1"):
        head(beam_width=0)


@pytest.mark.parametrize("beam", [1, 4])
def test_it_learns_by_heart(beam):
    made = head(beam_width=beam)
    f, target = fused([5, 5], 5), torch.tensor([[0, 1, 0], [1, 1, IGNORE]])
    tokens = torch.nn.Parameter(f.tokens)
    prediction, _, total, _ = learn(made, target, lambda: f._replace(tokens=tokens), [tokens], steps=100)
    assert total < 0.05
    said = made.decode(Transcript(prediction.logits.detach()), f, {})
    assert prediction.compare(said, ["aba", "bb"], made.decoding) == (["aba", "bb"], ["aba", "bb"])


def test_of_windows_of_another_input_the_first_counts():
    prediction = Transcript(torch.arange(6.0).view(3, 2, 1))
    assert prediction.merge(torch.tensor([1, 0, 1]), 2).logits.flatten().tolist() == [2, 3, 0, 1]
