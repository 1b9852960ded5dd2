"""What every head has to keep."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm.contracts._demands import ROWS, Result, compiles, demand, exports, flat, give_attributes, gradients, run, same
from mm.contracts.fusion import random_features
from mm.types import (
    ONCE,
    Aligned,
    Calibrated,
    Conformal,
    Features,
    Judged,
    Read,
    Spoken,
    TargetRead,
    TargetTransform,
    blank,
    labelled,
)

TOKENS = 5


def examples(reads: TargetTransform) -> TargetRead:
    """What is learnt of its own examples, the second of ROWS rows unlabelled."""
    cells = [reads.examples[i % len(reads.examples)] for i in range(ROWS)]
    cells[1] = None
    return reads.learn(cells, np.ones(ROWS, dtype=bool), None)


def of_text(text: str) -> dict[str, Tensor]:
    """The meta of a text whose every token is a word."""
    words = list(re.finditer(r"\S+", text))
    return {
        "words": torch.arange(len(words)),
        "places": torch.tensor([word.span() for word in words]),
        "characters": torch.tensor([ord(letter) for letter in text]),
    }


def of_picture() -> dict[str, Tensor]:
    """The meta of a picture that is mirrored."""
    return {"frame": torch.tensor([100.0, 0, 0, 60]), "size": torch.tensor([100.0, 60])}


def tokens_of(reads: TargetTransform) -> tuple[Tensor, dict[str, Tensor]]:
    """Targets of the examples, and the meta of the inputs that they go with."""
    values = examples(reads).values
    if not isinstance(reads, Aligned):
        return pad_sequence(values, True, blank(values[0])) if isinstance(values, list) else values, {}
    pictures = reads.needs is not None and reads.needs[0] == "vision"
    metas = [of_picture() if pictures else of_text(reads.texts[i % len(reads.texts)]) for i in range(ROWS)]
    window = torch.zeros(1)
    targets = [reads.align(v, Read([window], False, [meta]))[0] for v, meta in zip(values, metas)]
    target = at_tokens(targets, blank(targets[0]))
    meta = {}
    for key in metas[0]:
        found = [one[key] for one in metas]
        once = key in ONCE
        meta[f"{reads.input}/{key}"] = pad_sequence(found, batch_first=True) if once else at_tokens(found, -1)
    return target, meta


def at_tokens(rows: Sequence[Tensor], fill: float) -> Tensor:
    """Of each row (T', ...), padded -> (B, TOKENS, ...)"""
    x = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    return F.pad(x, [0, 0] * (x.dim() - 2) + [0, TOKENS - x.shape[1]], value=fill)


class Case(NamedTuple):
    """A head with random features and targets of its examples; the second row unlabelled, the last without tokens."""

    head: Any
    reads: TargetTransform
    fused: Features
    target: Tensor
    meta: dict[str, Tensor]

    def loss(self, fused: Features, target: Tensor) -> tuple[Tensor, Tensor]:
        """The head's loss as in training: sum and count."""
        return self.head.loss(self.head(fused, target), target, fused)

    def again(self) -> Features:
        """Other features of the same rows."""
        return random_features(ROWS, TOKENS, self.fused.tokens.shape[2])


def finite(case: Case) -> None:
    """What is told has the rows that were asked for, and is finite."""
    for tensor in flat(case.head(case.fused)):
        demand(len(tensor) == ROWS, f"prediction: {len(tensor)} rows, wanted {ROWS}")
        demand(tensor.isfinite().all(), "prediction: not finite")


def loss(case: Case) -> None:
    """A sum and a count, which add up over the parts of a batch."""
    total, count = case.loss(case.fused, case.target)
    demand(total.dim() == 0 and count.dim() == 0, "loss: wanted two scalars, sum and count")
    demand(total.isfinite() and count > 0, f"loss: sum {total.item()}, count {count.item()} of labelled rows")
    halves = [Features(*(t[part] for t in case.fused)) for part in (slice(0, 2), slice(2, None))]
    parts = [case.loss(f, t) for f, t in zip(halves, case.target.split(2), strict=True)]
    same(parts[0][0] + parts[1][0], total, "sum over two halves of the rows")
    same(parts[0][1] + parts[1][1], count, "count over two halves of the rows")


def unlabelled(case: Case) -> None:
    """Rows without a label have no part in the loss."""
    total, count = case.loss(case.fused, case.target[1:2].expand_as(case.target))
    demand(
        not total.any() and not count.any(),
        f"sum {float(total)}, count {float(count)}, wanted 0 and 0 without any label",
    )
    other = Features(*(torch.where(_row(t, 1), u, t) for t, u in zip(case.fused, case.again())))
    before, after = (case.loss(f, case.target)[0] for f in (case.fused, other))
    same(after, before, "unlabelled row changed")


def precision(case: Case) -> None:
    """The loss is taken in float32, whatever the features are in."""
    low = Features(*(t.bfloat16() if t.is_floating_point() else t for t in case.fused))
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = case.loss(low, case.target)
    demand(total.dtype == torch.float32, f"loss under autocast: {total.dtype}, wanted torch.float32")


def score(case: Case) -> None:
    """Only labelled rows are scored."""
    prediction = case.head(case.fused)
    if isinstance(case.head, Spoken):
        rows = labelled(case.target).nonzero().flatten().tolist()
        learnt = examples(case.reads)
        said = case.head.decode(prediction, case.fused, case.meta)
        written = [case.reads.readable(learnt.values[row], learnt.data) for row in rows]
        got, truth = case.head.compare([said[row] for row in rows], written)
    else:
        got, truth = case.head.score(prediction, case.target)
    demand(len(got) == len(truth) == ROWS - 1, f"score: {len(got)} and {len(truth)} rows, wanted {ROWS - 1} labelled")


def decode(case: Case) -> None:
    """Plain data of every row, its prediction first; one window a row is the row."""
    prediction = case.head(case.fused)
    rows = case.head.decode(prediction, case.fused, case.meta)
    demand(len(rows) == ROWS, f"decode: {len(rows)} rows, wanted {ROWS}")
    demand(next(iter(rows[0])) == "prediction", f"decode: first key '{next(iter(rows[0]))}', wanted 'prediction'")
    json.dumps(rows)  # raises where something isn't plain data
    merged = case.head.decode(case.head.merge(prediction, torch.arange(ROWS), ROWS), case.fused, case.meta)
    demand(
        [row["prediction"] for row in merged] == [row["prediction"] for row in rows],
        "merge: one window per row changes the prediction",
    )


def calibrated(case: Case) -> None:
    """Dividing by a temperature divides the logits of what can be chosen, and changes nothing else."""
    prediction = case.head(case.fused)
    logits, truth = case.head.choices(prediction, case.target)
    demand(
        logits.dim() == 3 and logits.shape[:2] == truth.shape,
        f"choices: logits {tuple(logits.shape)} and truth {tuple(truth.shape)}, wanted (N, G, C) and (N, G)",
    )
    possible = logits > -1e8
    softer, _ = case.head.choices(case.head.tempered(prediction, 2.0), case.target)
    same(softer[possible], logits[possible] / 2, "choices of what is tempered by 2, against half the logits")
    demand(torch.equal(softer > -1e8, possible), "tempered: what can't be chosen, can")


def judged(case: Case) -> None:
    """What is told is as probable as the rows say, and a revision that keeps the order changes nothing else."""
    rows = labelled(case.target).nonzero().flatten().tolist()
    learnt = examples(case.reads)
    told = case.head.decode(case.head(case.fused), case.fused, case.meta)
    said = [told[row] for row in rows]
    truth = [case.reads.readable(learnt.values[row], learnt.data) for row in rows]
    odds, right = case.head.judge(said, truth)
    demand(len(odds) == len(right), f"judge: {len(odds)} log-odds, and {len(right)} that are right or not")
    demand(torch.tensor(odds).isfinite().all(), "judge: log-odds that are not finite")
    as_before, _ = case.head.judge([case.head.revised(row, lambda x: x) for row in said], truth)
    same(torch.tensor(as_before).sigmoid(), torch.tensor(odds).sigmoid(), "revised: by nothing, something changes")
    lower, after = case.head.judge([case.head.revised(row, lambda x: x - 1) for row in said], truth)
    same(torch.tensor(lower).sigmoid(), (torch.tensor(odds) - 1).sigmoid(), "log-odds that are lowered by 1")
    demand(after == right, "revised: what is right changes with how probable it is")


def conformal(case: Case) -> None:
    """Labelled rows have a nonconformity, and larger quantiles give larger regions."""
    prediction = case.head(case.fused)
    scores = case.head.nonconformity(prediction, case.target)
    demand(len(scores) == ROWS - 1, f"nonconformity: {len(scores)} rows, wanted {ROWS - 1} labelled")
    limits = [float(column[~column.isnan()].max()) for column in scores.T]
    rows, size = case.head.region(prediction, limits, case.meta)
    demand(len(rows) == len(size) == ROWS, f"region: {len(rows)} rows and {len(size)} sizes, wanted {ROWS}")
    json.dumps(rows)
    wider = case.head.region(prediction, [2 * x for x in limits], case.meta)[1]
    demand((wider >= size).all(), "region: smaller under larger quantiles")


CHECKS: dict[str, Callable[[Case], None]] = {
    "shapes": finite,
    "loss": loss,
    "unlabelled": unlabelled,
    "precision": precision,
    "score": score,
    "decode": decode,
    "export": lambda case: exports(case.head, (case.fused,), (case.again(),)),
    "compile": lambda case: compiles(case.head, (case.fused,)),
}
FURTHER: dict[str, tuple[type, Callable[[Case], None]]] = {  # of the heads that have more than every head
    "calibrated": (Calibrated, calibrated),
    "judged": (Judged, judged),
    "conformal": (Conformal, conformal),
}


def check_head(head: Any, reads: TargetTransform, embed_dim: int) -> list[Result]:
    """All checks of a head. reads: what its target's cells are read by, which the head was built for."""
    torch.manual_seed(0)
    give_attributes(head)
    head.eval()
    fused = random_features(ROWS, TOKENS, embed_dim, torch.tensor([True] * (ROWS - 1) + [False]))
    case = Case(head, reads, fused, *tokens_of(reads))
    checks = CHECKS | {name: check for name, (kind, check) in FURTHER.items() if isinstance(head, kind)}
    with torch.no_grad():
        results = run({name: partial(check, case) for name, check in checks.items()})
    training = partial(gradients, head, lambda copy: case._replace(head=copy).loss(case.again(), case.target)[0])
    return results + run({"gradients": training})


def _row(t: Tensor, index: int) -> Tensor:
    """True in one row, for torch.where over tensors of any dimension."""
    return (torch.arange(t.shape[0]) == index).view(-1, *[1] * (t.dim() - 1))
