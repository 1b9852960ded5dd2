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

from mm.batching import PER_ROW_META
from mm.contracts._demands import ROWS, Result, compiles, demand, exports, flat, give_attributes, gradients, run, same
from mm.contracts.fusion import random_features
from mm.predictions import Prediction
from mm.targets.base import AlignedCodec
from mm.tensors import labelled, unlabelled_value
from mm.types import EncodedInput, EncodedTarget, Features, TargetCodec

TOKENS = 5


def examples(codec: TargetCodec) -> EncodedTarget:
    """What is learnt of its own examples, the second of ROWS rows unlabelled."""
    cells = [codec.examples[i % len(codec.examples)] for i in range(ROWS)]
    cells[1] = None
    return codec.fit(cells, np.ones(ROWS, dtype=bool), None)


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


def tokens_of(codec: TargetCodec) -> tuple[Tensor, dict[str, Tensor]]:
    """Targets of the examples, and the meta of the inputs that they go with."""
    values = examples(codec).values
    if not isinstance(codec, AlignedCodec):
        return pad_sequence(values, True, unlabelled_value(values[0])) if isinstance(values, list) else values, {}
    pictures = codec.needs is not None and codec.needs[0] == "vision"
    metas = [of_picture() if pictures else of_text(codec.texts[i % len(codec.texts)]) for i in range(ROWS)]
    window = torch.zeros(1)
    targets = [codec.align(v, EncodedInput([window], False, [meta]))[0] for v, meta in zip(values, metas)]
    target = at_tokens(targets, unlabelled_value(targets[0]))
    meta = {}
    for key in metas[0]:
        found = [one[key] for one in metas]
        once = key in PER_ROW_META
        meta[f"{codec.input}/{key}"] = pad_sequence(found, batch_first=True) if once else at_tokens(found, -1)
    return target, meta


def at_tokens(rows: Sequence[Tensor], fill: float) -> Tensor:
    """Of each row (T', ...), padded -> (B, TOKENS, ...)"""
    x = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    return F.pad(x, [0, 0] * (x.dim() - 2) + [0, TOKENS - x.shape[1]], value=fill)


class Case(NamedTuple):
    """A head with random features and targets of its examples; the second row unlabelled, the last without tokens."""

    head: Any
    codec: TargetCodec
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
    """Metrics read labelled rows only."""
    prediction = case.head(case.fused)
    if prediction.compares_decoded:
        rows, truth = decoded_and_true(case, prediction)
        got, wanted = prediction.compare(rows, truth, case.head.decoding)
    else:
        got, wanted = prediction.metric_inputs(case.target)
    demand(len(got) == len(wanted) == ROWS - 1, f"score: {len(got)} and {len(wanted)} rows, wanted {ROWS - 1} labelled")


def decoded_and_true(case: Case, prediction: Prediction) -> tuple[list[dict[str, Any]], list[Any]]:
    """Decode the labelled rows. -> what is predicted, and what a person wrote"""
    rows = labelled(case.target).nonzero().flatten().tolist()
    learnt = examples(case.codec)
    decoded = case.head.decode(prediction, case.fused, case.meta)
    return [decoded[row] for row in rows], [case.codec.decode(learnt.values[row], learnt.data) for row in rows]


def decode(case: Case) -> None:
    """Plain data of every row, its prediction first; one window a row is the row."""
    prediction = case.head(case.fused)
    rows = case.head.decode(prediction, case.fused, case.meta)
    demand(len(rows) == ROWS, f"decode: {len(rows)} rows, wanted {ROWS}")
    demand(next(iter(rows[0])) == "prediction", f"decode: first key '{next(iter(rows[0]))}', wanted 'prediction'")
    json.dumps(rows)  # raises where something isn't plain data
    merged = case.head.decode(prediction.merge(torch.arange(ROWS), ROWS), case.fused, case.meta)
    demand(
        [row["prediction"] for row in merged] == [row["prediction"] for row in rows],
        "merge: one window per row changes the prediction",
    )


def temperature(case: Case) -> None:
    """Dividing by a temperature divides the logits of what is possible, and changes nothing else."""
    prediction = case.head(case.fused)
    logits, truth = prediction.events(case.target)
    demand(
        logits.dim() == 3 and logits.shape[:2] == truth.shape,
        f"events: logits {tuple(logits.shape)} and truth {tuple(truth.shape)}, wanted (N, G, C) and (N, G)",
    )
    possible = logits > -1e8
    softer, _ = prediction.temper(2.0).events(case.target)
    same(softer[possible], logits[possible] / 2, "events at a temperature of 2, against half the logits")
    demand(torch.equal(softer > -1e8, possible), "temper: what is impossible becomes possible")


def confidence(case: Case) -> None:
    """Every answer has a confidence, and a scale that keeps the order changes nothing else."""
    prediction, decoding = case.head(case.fused), case.head.decoding
    rows, truth = decoded_and_true(case, prediction)
    odds, right = prediction.confidences(rows, truth, decoding)
    demand(len(odds) == len(right), f"confidences: {len(odds)} log-odds, and {len(right)} that are right or not")
    demand(torch.tensor(odds).isfinite().all(), "confidences: log-odds that are not finite")
    unchanged = [prediction.with_confidence(row, lambda x: x, decoding) for row in rows]
    again, _ = prediction.confidences(unchanged, truth, decoding)
    same(torch.tensor(again).sigmoid(), torch.tensor(odds).sigmoid(), "with_confidence: the identity changes something")
    lowered = [prediction.with_confidence(row, lambda x: x - 1, decoding) for row in rows]
    lower, after = prediction.confidences(lowered, truth, decoding)
    same(torch.tensor(lower).sigmoid(), (torch.tensor(odds) - 1).sigmoid(), "log-odds that are lowered by 1")
    demand(after == right, "with_confidence: what is right changes with the confidence")


def prediction_sets(case: Case) -> None:
    """Labelled rows have a nonconformity, and larger quantiles give larger sets."""
    prediction, decoding = case.head(case.fused), case.head.decoding
    scores = prediction.nonconformity(case.target, decoding)
    demand(len(scores) == ROWS - 1, f"nonconformity: {len(scores)} rows, wanted {ROWS - 1} labelled")
    limits = [float(column[~column.isnan()].max()) for column in scores.T]
    rows, size = prediction.prediction_sets(limits, decoding, case.meta)
    demand(len(rows) == len(size) == ROWS, f"prediction_sets: {len(rows)} rows and {len(size)} sizes, wanted {ROWS}")
    json.dumps(rows)
    wider = prediction.prediction_sets([2 * x for x in limits], decoding, case.meta)[1]
    demand((wider >= size).all(), "prediction_sets: smaller under larger quantiles")


def typed(case: Case) -> None:
    """A head inherits the base class of heads and returns a type of mm.predictions."""
    missing = [name for name in MEMBERS if not hasattr(case.head, name)]
    demand(not missing, f"has no {', '.join(missing)}; inherit mm.heads.Head, which gives all but forward and loss")
    prediction = case.head(case.fused)
    demand(
        isinstance(prediction, Prediction),
        f"forward returned {type(prediction).__name__}, wanted a type of mm.predictions, such as Categorical; methods "
        "of a head other than forward and loss, such as merge or score, are those of the prediction",
    )


MEMBERS = ("weight", "input", "per_window", "decoding", "decode")  # that everybody asks a head for
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


def further_checks(prediction: Prediction) -> dict[str, Callable[[Case], None]]:
    """Return the checks of what the type of the prediction has more than every one."""
    checks: dict[str, Callable[[Case], None]] = {}
    if prediction.calibration == "temperature":
        checks["calibrated"] = temperature
    if prediction.calibration == "platt":
        checks["judged"] = confidence
    if prediction.has_sets:
        checks["conformal"] = prediction_sets
    return checks


def check_head(head: Any, codec: TargetCodec, embed_dim: int) -> list[Result]:
    """All checks of a head. codec: what its target's cells are read by, which the head was built for."""
    torch.manual_seed(0)
    give_attributes(head)
    head.eval()
    fused = random_features(ROWS, TOKENS, embed_dim, torch.tensor([True] * (ROWS - 1) + [False]))
    case = Case(head, codec, fused, *tokens_of(codec))
    with torch.no_grad():
        first = run({"prediction": partial(typed, case)})
        if first[0][1] is not None:  # nothing else can be checked
            return first
        checks = CHECKS | further_checks(case.head(case.fused))
        results = first + run({name: partial(check, case) for name, check in checks.items()})
    training = partial(gradients, head, lambda copy: case._replace(head=copy).loss(case.again(), case.target)[0])
    return results + run({"gradients": training})


def _row(t: Tensor, index: int) -> Tensor:
    """True in one row, for torch.where over tensors of any dimension."""
    return (torch.arange(t.shape[0]) == index).view(-1, *[1] * (t.dim() - 1))
