"""Losses by hand, decoding beside a search of all spans, windows beside the whole, and learning by heart."""

import math

import pytest
import torch
from heads.by_heart import learn
from torch.nn.utils.rnn import pad_sequence

from mm.batching import Sample, collate
from mm.heads.span import SpanHead
from mm.predictions import Span
from mm.predictions.span import IMPOSSIBLE_LOGIT
from mm.targets.span import SpanTarget
from mm.transforms.text.tokens import TextTransform
from mm.types import IGNORE, Features
from mm.windows import side_by_side


def head(**how) -> SpanHead:
    torch.manual_seed(0)
    return SpanHead(input="text", embed_dim=8, **how)


def test_loss_by_hand():
    """No answer, and two tokens: thirds each. One answer, none, several that begin at either, and unlabelled."""
    spans = Span(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 2))
    target = torch.tensor([[1, 2], [0, 0], [3, 3], [IGNORE, IGNORE]])
    here = Features(torch.zeros(4, 2, 8), torch.ones(4, 2, dtype=torch.bool), torch.zeros(4, 8), torch.zeros(4, 2, 2))
    each = [
        head().loss(Span(*(x[i : i + 1] for x in spans)), target[i : i + 1], Features(*(x[i : i + 1] for x in here)))
        for i in range(4)
    ]
    assert [float(total) for total, _ in each] == pytest.approx([math.log(3), math.log(3), math.log(3 / 2), 0])
    total, count = head().loss(spans, target, here)
    assert float(total) == pytest.approx(2 * math.log(3) + math.log(3 / 2))
    assert int(count) == 3
    here.mask[0] = False  # the text is absent, as modality_dropout makes it: it tells nothing
    total, count = head().loss(head().requires_grad_(False)(here), target, here)
    assert float(total) < 10 and int(count) == 2


def batch_of(texts: list, **how):
    tokens = TextTransform("bytes", return_offsets=True, **how)
    return collate([Sample({"text": tokens(text)}, {}, row) for row, text in enumerate(texts)], {"text": tokens})


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_decoding_is_the_best_of_all_spans(longest):
    text = "a cat sees"
    batch = batch_of([("who?", text)])
    count = len("who?") + 1
    for seed in range(10):
        begin, last = torch.randn(2, 1, count + len(text), generator=torch.Generator().manual_seed(seed))
        nothing = torch.tensor([[-9.0, -9.0]])
        scores = {
            (i, j): float(begin[0, count + i] + last[0, count + j])
            for i in range(len(text))
            for j in range(i, min(len(text), i + longest))
        }
        (i, j), best = max(scores.items(), key=lambda one: one[1])
        (row,) = head(max_answer_length=longest, n_best=2).decode(Span(begin, last, nothing), None, batch.meta)
        assert (row["start"], row["end"], row["prediction"]) == (i, j + 1, text[i : j + 1])
        every = torch.tensor([*scores.values(), -18.0]).softmax(0)
        assert row["probability"] == pytest.approx(float(every.max()), abs=1e-5)
        assert [one["probability"] for one in row["n_best"]] == pytest.approx(
            sorted(every[:-1].tolist(), reverse=True)[:2], abs=1e-5
        )
        (none,) = head().decode(Span(begin, last, nothing + 9 + best), None, batch.meta)
        assert (none["prediction"], none["start"]) == ("", None)
        assert none["n_best"][0]["text"]


def test_windows_find_what_the_whole_text_says():
    text, other = "one two three four", "five"
    batch = batch_of([text, other], max_length=8, overflow="window", window_overlap=0.5)
    letters = batch.inputs["text"] - 1
    begin = torch.where(letters == ord("h"), 9.0, 0.0).masked_fill(~batch.masks["text"], IMPOSSIBLE_LOGIT)
    last = torch.where(letters == ord("r"), 5.0, 0.0).masked_fill(~batch.masks["text"], IMPOSSIBLE_LOGIT)
    nothing = torch.zeros(len(letters), 2)
    nothing[0] += 50  # the first window is certain that it has none, the others are not
    group = batch.row.unique(return_inverse=True)[1]
    merged = Span(begin, last, nothing).merge(group, 2)
    places = side_by_side(batch.meta["text/places"], group, 2, batch.masks["text"].shape[1], -1)
    meta = {"text/places": places, "text/characters": batch.meta["text/characters"][[0, -1]]}
    first, second = head(max_answer_length=3).decode(merged, None, meta)
    assert (first["prediction"], first["start"]) == ("hr", 9)
    assert text[first["start"] : first["end"]] == "hr"
    assert second["end"] <= len(other)


def test_it_learns_by_heart():
    texts = [("who?", "the old cat sees"), ("where?", "it is in Rome"), ("why?", "so it goes")]
    cells = ["cat", [{"text": "Rome", "answer_start": 9}, "in Rome"], []]
    tokens, reads = TextTransform("bytes", return_offsets=True), SpanTarget("text")
    values = reads.fit(cells, torch.ones(3, dtype=torch.bool).numpy(), None)
    read = [tokens(text) for text in texts]
    rows = [Sample({"text": r}, {"t": reads.align(v, r)}, i) for i, (r, v) in enumerate(zip(read, values.values))]
    batch = collate(rows, {"text": tokens})
    torch.manual_seed(0)
    made = SpanHead(input="text", embed_dim=32)
    mask = batch.masks["text"]
    table = torch.nn.Embedding(mask.numel(), 32)
    number = torch.arange(mask.numel()).view_as(mask)

    def see() -> Features:
        return Features(table(number), mask, table(number[:, 0]), torch.zeros(*mask.shape, 2))

    prediction, fused, total, count = learn(made, batch.targets["t"], see, table.parameters())
    assert count == 3
    assert total < 0.01
    said = made.decode(Span(*(x.detach() for x in prediction)), fused, batch.meta)
    assert [row["prediction"] for row in said] in (["cat", "Rome", ""], ["cat", "in Rome", ""])
    written = [reads.decode(v, values.data) for v in values.values]
    assert prediction.compare(said, written, made.decoding)[1] == [["cat"], ["Rome", "in Rome"], [""]]


def test_padding_is_no_place():
    fused = Features(
        torch.randn(2, 4, 8),
        pad_sequence([torch.ones(4), torch.ones(2)], True).bool(),
        torch.randn(2, 8),
        torch.zeros(2, 4, 2),
    )
    found = head()(fused)
    assert (found.begin[1, 2:] == IMPOSSIBLE_LOGIT).all()
    with pytest.raises(ValueError, match="max_answer_length: got 0, wanted at least 1"):
        head(max_answer_length=0)


def test_events_have_the_loss_of_the_head():
    """One answer, none, and an unlabelled row; padding can't be chosen."""
    begin, last = torch.randn(2, 3, 4).masked_fill(torch.tensor([False, False, False, True]), IMPOSSIBLE_LOGIT)
    spans = Span(begin, last, torch.randn(3, 2))
    target = torch.tensor([[0, 1, 2], [0, 0, 0], [IGNORE] * 3])
    found, truth = spans.events(target)
    assert found.shape == (2, 2, 5) and truth.tolist() == [[2, 3], [0, 0]]
    mask = torch.tensor([[True, True, True, False]] * 3)
    total, count = head().loss(spans, target, Features(torch.zeros(3, 4, 8), mask, torch.zeros(3, 8), mask))
    torch.testing.assert_close(torch.nn.functional.cross_entropy(found.flatten(0, 1), truth.flatten()), total / count)
    both = torch.tensor([[3, 0, 3, 0]])  # two answers of one token: the likelier counts
    likelier = Span(*(x[:1] for x in spans)).events(both)[1]
    assert likelier.tolist() == [[1 + 2 * int(x[0, 2] > x[0, 0]) for x in (begin, last)]]


def test_a_temperature_changes_what_an_answer_is_worth_and_not_the_answer():
    batch = batch_of([("who?", "a cat sees")])
    begin, last = torch.randn(2, 1, batch.masks["text"].shape[1], generator=torch.Generator().manual_seed(1))
    spans = Span(begin.masked_fill(~batch.masks["text"], IMPOSSIBLE_LOGIT), last, torch.full((1, 2), -9.0))
    (before,) = head(n_best=100).decode(spans, None, batch.meta)
    (after,) = head(n_best=100).decode(spans.temper(3.0), None, batch.meta)
    assert [one["text"] for one in after["n_best"]] == [one["text"] for one in before["n_best"]]
    odds = [math.log(row["n_best"][0]["probability"] / row["n_best"][-1]["probability"]) for row in (before, after)]
    assert odds[1] == pytest.approx(odds[0] / 3, rel=1e-4)
    nowhere = Span(torch.full_like(begin, IMPOSSIBLE_LOGIT), torch.full_like(last, IMPOSSIBLE_LOGIT), torch.zeros(1, 2))
    assert head().decode(nowhere.temper(3.0), None, batch.meta)[0]["n_best"] == []
