"""Contract of heads."""

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
    """Encode the example cells of a target codec; the second of the ROWS rows is unlabelled."""
    cells = [codec.examples[i % len(codec.examples)] for i in range(ROWS)]
    cells[1] = None
    return codec.fit(cells, np.ones(ROWS, dtype=bool), None)


def of_text(text: str) -> dict[str, Tensor]:
    """Return the meta of a text in which every word is one token."""
    words = list(re.finditer(r"\S+", text))
    return {
        "words": torch.arange(len(words)),
        "places": torch.tensor([word.span() for word in words]),
        "characters": torch.tensor([ord(letter) for letter in text]),
    }


def of_picture() -> dict[str, Tensor]:
    """Return the meta of a mirrored image."""
    return {"frame": torch.tensor([100.0, 0, 0, 60]), "size": torch.tensor([100.0, 60])}


def tokens_of(codec: TargetCodec) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the targets of the examples of a codec, and the meta of the input to which they are aligned."""
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
    """Stack rows (T', ...) to (B, TOKENS, ...), with padding.

    Args:
        rows: One tensor per row.
        fill: Value of the padding.
    """
    x = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    return F.pad(x, [0, 0] * (x.dim() - 2) + [0, TOKENS - x.shape[1]], value=fill)


class Case(NamedTuple):
    """A head with random Features and the targets of its examples.

    The second row is unlabelled, and the last row has no tokens.
    """

    head: Any
    codec: TargetCodec
    fused: Features
    target: Tensor
    meta: dict[str, Tensor]

    def loss(self, fused: Features, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the head as in training: its sum over the labelled units, and their number or weight."""
        return self.head.loss(self.head(fused, target), target, fused)

    def again(self) -> Features:
        """Return other random Features of the same shape."""
        return random_features(ROWS, TOKENS, self.fused.tokens.shape[2])


def finite(case: Case) -> None:
    """Check that predictions are finite and have one row per sample."""
    for tensor in flat(case.head(case.fused)):
        demand(len(tensor) == ROWS, f"prediction: {len(tensor)} rows, wanted {ROWS}")
        demand(tensor.isfinite().all(), "prediction: not finite")


def loss(case: Case) -> None:
    """Check that the loss is a sum and a count, and that both add up over the parts of a batch."""
    total, count = case.loss(case.fused, case.target)
    demand(total.dim() == 0 and count.dim() == 0, "loss: wanted two scalars, sum and count")
    demand(total.isfinite() and count > 0, f"loss: sum {total.item()}, count {count.item()} of labelled rows")
    halves = [Features(*(t[part] for t in case.fused)) for part in (slice(0, 2), slice(2, None))]
    parts = [case.loss(f, t) for f, t in zip(halves, case.target.split(2), strict=True)]
    same(parts[0][0] + parts[1][0], total, "sum over two halves of the rows")
    same(parts[0][1] + parts[1][1], count, "count over two halves of the rows")


def unlabelled(case: Case) -> None:
    """Check that unlabelled rows do not contribute to the loss."""
    total, count = case.loss(case.fused, case.target[1:2].expand_as(case.target))
    demand(
        not total.any() and not count.any(),
        f"sum {float(total)}, count {float(count)}, wanted 0 and 0 without any label",
    )
    other = Features(*(torch.where(_row(t, 1), u, t) for t, u in zip(case.fused, case.again())))
    before, after = (case.loss(f, case.target)[0] for f in (case.fused, other))
    same(after, before, "unlabelled row changed")


def precision(case: Case) -> None:
    """Check that the loss is computed in float32, even for Features in bfloat16."""
    low = Features(*(t.bfloat16() if t.is_floating_point() else t for t in case.fused))
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = case.loss(low, case.target)
    demand(total.dtype == torch.float32, f"loss under autocast: {total.dtype}, wanted torch.float32")


def score(case: Case) -> None:
    """Check that the inputs of metrics consist of the labelled rows only."""
    prediction = case.head(case.fused)
    if prediction.compares_decoded:
        rows, truth = decoded_and_true(case, prediction)
        got, wanted = prediction.compare(rows, truth, case.head.decoding)
    else:
        got, wanted = prediction.metric_inputs(case.target)
    demand(len(got) == len(wanted) == ROWS - 1, f"score: {len(got)} and {len(wanted)} rows, wanted {ROWS - 1} labelled")


def decoded_and_true(case: Case, prediction: Prediction) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the decoded predictions of the labelled rows, and their targets in readable form."""
    rows = labelled(case.target).nonzero().flatten().tolist()
    learnt = examples(case.codec)
    decoded = case.head.decode(prediction, case.fused, case.meta)
    return [decoded[row] for row in rows], [case.codec.decode(learnt.values[row], learnt.data) for row in rows]


def decode(case: Case) -> None:
    """Check that every row decodes to plain data, with the key "prediction" first.

    Merging the windows of rows that have one window each must not change the predictions.
    """
    prediction = case.head(case.fused)
    rows = case.head.decode(prediction, case.fused, case.meta)
    demand(len(rows) == ROWS, f"decode: {len(rows)} rows, wanted {ROWS}")
    demand(next(iter(rows[0])) == "prediction", f"decode: first key '{next(iter(rows[0]))}', wanted 'prediction'")
    json.dumps(rows)  # raises an error if something is not plain data
    merged = case.head.decode(prediction.merge(torch.arange(ROWS), ROWS), case.fused, case.meta)
    demand(
        [row["prediction"] for row in merged] == [row["prediction"] for row in rows],
        "merge: one window per row changes the prediction",
    )


def temperature(case: Case) -> None:
    """Check that `temper` divides the logits of possible classes by the temperature, and changes nothing else."""
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
    """Check that every answer has a confidence, and that lowering the confidences changes nothing else."""
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
    """Check that labelled rows have nonconformity scores, and that larger quantiles never give smaller sets."""
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
    """Check that a head inherits from `mm.heads.Head` and returns a type of `mm.predictions`."""
    missing = [name for name in MEMBERS if not hasattr(case.head, name)]
    demand(not missing, f"has no {', '.join(missing)}; inherit mm.heads.Head, which gives all but forward and loss")
    prediction = case.head(case.fused)
    demand(
        isinstance(prediction, Prediction),
        f"forward returned {type(prediction).__name__}, wanted a type of mm.predictions, such as Categorical; methods "
        "of a head other than forward and loss, such as merge or score, are those of the prediction",
    )


MEMBERS = ("weight", "input", "per_window", "decoding", "decode")  # that the model and the tasks use
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
    """Return the checks that apply only to predictions with calibration or prediction sets."""
    checks: dict[str, Callable[[Case], None]] = {}
    if prediction.calibration == "temperature":
        checks["calibrated"] = temperature
    if prediction.calibration == "platt":
        checks["judged"] = confidence
    if prediction.has_sets:
        checks["conformal"] = prediction_sets
    return checks


def check_head(head: Any, codec: TargetCodec, embed_dim: int) -> list[Result]:
    """Run all checks of a head.

    Args:
        head: The head.
        codec: Codec of its target, for which the head was built.
        embed_dim: Width D of its Features.
    """
    torch.manual_seed(0)
    give_attributes(head)
    head.eval()
    fused = random_features(ROWS, TOKENS, embed_dim, torch.tensor([True] * (ROWS - 1) + [False]))
    case = Case(head, codec, fused, *tokens_of(codec))
    with torch.no_grad():
        first = run({"prediction": partial(typed, case)})
        if first[0][1] is not None:  # the other checks need them
            return first
        checks = CHECKS | further_checks(case.head(case.fused))
        results = first + run({name: partial(check, case) for name, check in checks.items()})
    training = partial(gradients, head, lambda copy: case._replace(head=copy).loss(case.again(), case.target)[0])
    return results + run({"gradients": training})


def _row(t: Tensor, index: int) -> Tensor:
    """Return a mask that is True in one row, of a shape for torch.where with `t`."""
    return (torch.arange(t.shape[0]) == index).view(-1, *[1] * (t.dim() - 1))
