"""What `mm calibrate` learns of a model's heads, and how it tells of it."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from mm.checkpoint import to_device
from mm.messages import cell
from mm.metrics import calibration as metrics
from mm.model import MultimodalModel
from mm.predictions import Calibration, Prediction
from mm.types import Head, Merged, labelled, pick

Pair = tuple[Tensor, Tensor]  # logits and truth, as in mm/metrics/calibration.py


@dataclass
class Seen:
    """What one head says of some rows, not calibrated, and what is true."""

    head: Head
    kind: type[Prediction]
    batches: list[tuple[Prediction, Tensor, dict[str, Tensor]]]  # prediction, target, meta

    def add(self, name: str, merged: Merged, datamodule: Any) -> None:
        """The rows of one batch."""
        said = merged.predictions[name], merged.targets[name], merged.meta
        self.batches.append(tree_map_only(Tensor, Tensor.cpu, said))

    @property
    def rows(self) -> int:
        """How many are labelled."""
        return sum(int(labelled(target).sum()) for _, target, _ in self.batches)

    def fit(self) -> Calibration:
        """Errors: ValueError where nothing can be learnt."""
        return Calibration(temperature=metrics.fit_temperature(*self.choices(Calibration())))

    def tempered(self, temperature: float) -> Iterator[tuple[Prediction, Tensor, dict[str, Tensor]]]:
        """Predictions, targets and meta of the labelled rows, batch by batch."""
        for prediction, target, meta in self.batches:
            rows = labelled(target)
            if rows.any():
                prediction, target, meta = pick((prediction, target, meta), rows)
                yield prediction if temperature == 1 else prediction.temper(temperature), target, meta

    def choices(self, calibration: Calibration) -> Pair:
        """Where some rows have fewer choices than others, these can't be chosen. Errors: ValueError without labels."""
        parts = [said.events(target) for said, target, _ in self.tempered(calibration.temperature)]
        if not parts:
            raise ValueError(self.unlabelled())
        most = max(logits.shape[-1] for logits, _ in parts)
        logits = torch.cat([pad(x, (0, most - x.shape[-1]), value=10 * metrics.NEVER) for x, _ in parts])
        return logits, torch.cat([truth for _, truth in parts])

    def nonconformity(self, temperature: float) -> Tensor:
        """(N, G). Errors: ValueError without labels."""
        parts = [said.nonconformity(target, self.head.decoding) for said, target, _ in self.tempered(temperature)]
        if not parts:
            raise ValueError(self.unlabelled())
        return torch.cat(parts)

    def halves(self, seed: int) -> tuple["Seen", "Seen"]:
        """Divide the labelled rows into two random halves.

        Args:
            seed: Decides which row is in which half, together with how many labelled rows there are; neither the size
                of the batches nor their order matters, as long as rows keep their order.

        Returns:
            Two parts that have no row in common; of an odd number of rows the first has one more.
        """
        whole = list(self.tempered(1))
        count = sum(len(target) for _, target, _ in whole)
        chosen = torch.zeros(count, dtype=torch.bool)
        generator = torch.Generator().manual_seed(seed)
        chosen[torch.randperm(count, generator=generator)[: (count + 1) // 2]] = True
        first, second = Seen(self.head, self.kind, []), Seen(self.head, self.kind, [])
        for batch, mask in zip(whole, chosen.split([len(target) for _, target, _ in whole]), strict=True):
            for part, rows in ((first, mask), (second, ~mask)):
                if rows.any():
                    part.batches.append(pick(batch, rows))
        return first, second

    def unlabelled(self) -> str:
        return f"none of its {sum(len(target) for _, target, _ in self.batches)} rows is labelled"


@dataclass
class Heard:
    """The same of a head whose answers have confidences: their log-odds, and whether they are right."""

    head: Head
    kind: type[Prediction]
    told: list[float]  # log-odds
    right: list[bool]
    rows: int = 0  # that are labelled

    def add(self, name: str, merged: Merged, datamodule: Any) -> None:
        """The rows of one batch."""
        rows = (labelled(merged.targets[name]) & (merged.row >= 0)).nonzero().flatten()
        meta = {key: x[rows] for key, x in merged.meta.items()}
        prediction = pick(merged.predictions[name], rows)
        said = self.head.decode(prediction, pick(merged.fused, rows), meta)
        truth = [datamodule.truth(name, row) for row in merged.row[rows].tolist()]
        told, right = prediction.confidences(said, truth, self.head.decoding)
        self.told += told
        self.right += right
        self.rows += len(rows)

    def fit(self) -> Calibration:
        """Errors: ValueError where nothing can be learnt."""
        if not self.told:
            raise ValueError(f"nothing is told of its {self.rows} labelled rows")
        odds, right = self.choices(Calibration())
        temperature, bias = metrics.fit_platt(odds.flatten(), right.flatten())
        return Calibration(temperature=temperature, bias=bias, exact=True)

    def choices(self, calibration: Calibration) -> Pair:
        """Of everything told, whether it is right."""
        odds = torch.tensor(self.told, dtype=torch.double)
        odds = odds / calibration.temperature + calibration.bias
        return odds.view(-1, 1, 1), torch.tensor(self.right, dtype=torch.long).view(-1, 1)


def collect(model: MultimodalModel, datamodule: Any, split: str) -> dict[str, Seen | Heard]:
    """Of every row, by head; of heads that can be calibrated."""
    device = next(model.parameters()).device
    seen: dict[str, Seen | Heard] = {}
    with torch.inference_mode():
        for batch in tqdm(
            datamodule.loader(split), desc=split, leave=False, disable=None
        ):  # None: where nobody watches
            batch = datamodule.finish(to_device(batch, device))
            merged = model.merge(model(batch.inputs, batch.masks), batch)
            for name, head in model.heads.items():
                kind = type(merged.predictions[name])
                if name not in seen and kind.calibration == "platt":
                    seen[name] = Heard(head, kind, [], [])
                elif name not in seen and (kind.calibration is not None or kind.has_sets):
                    seen[name] = Seen(head, kind, [])
                if name in seen:
                    seen[name].add(name, merged, datamodule)
    return seen


def fit(
    model: MultimodalModel, seen: Mapping[str, Seen | Heard], alpha: float | None, seed: int
) -> tuple[dict[str, Calibration], dict[str, str]]:
    """Fit the calibration of each head.

    Where a head has both a temperature and conformal sets, a random half of its labelled rows fits the temperature and
    the other half the sets: their guarantee holds for new rows that are exchangeable with those that fitted the sets,
    which those that fitted the temperature are not. A head that has only one of them gets all rows for it.

    Args:
        model: Its heads are calibrated.
        seen: What each head says of the rows.
        alpha: The part of new rows whose truth the sets may miss; None for no sets.
        seed: Of the halves.

    Returns:
        The calibration of each head that has one, and why a head has none, or only a part of it.

    Raises:
        ValueError: If nothing can be learnt, or the rows are too few for alpha.
    """
    fitted: dict[str, Calibration] = {}
    left: dict[str, str] = {}
    for name, head in model.heads.items():
        found, quantiles, why = None, (), []
        rows = {"temperature": seen.get(name), "sets": seen.get(name)}
        kind = seen[name].kind if name in seen else Prediction
        if alpha is not None and kind.has_sets and kind.calibration == "temperature":
            rows["temperature"], rows["sets"] = cast(Seen, seen[name]).halves(seed)
        if kind.calibration is not None:
            try:
                found = cast(Seen | Heard, rows["temperature"]).fit()
            except ValueError as error:
                why.append(f"no temperature: {error}")
        else:
            why.append(f"no temperature: a {type(head).__name__} tells no probability")
        if alpha is not None and kind.has_sets:
            quantiles = find_quantiles(name, cast(Seen, rows["sets"]), found or Calibration(), alpha)
        elif alpha is not None:
            why.append(f"no sets: a {type(head).__name__} tells none")
        elif kind.has_sets and kind.calibration is None:
            why.append("conformal=0.1 would give it intervals")
        if why:
            left[name] = "; ".join(why)
        if found is not None or quantiles:
            kept = alpha if quantiles else None
            fitted[name] = replace(found or Calibration(), quantiles=quantiles, alpha=kept)
    if not fitted:
        raise ValueError(f"nothing can be calibrated: {', '.join(f'{name}: {why}' for name, why in left.items())}")
    return fitted, left


def find_quantiles(name: str, seen: Seen, calibration: Calibration, alpha: float) -> tuple[float, ...]:
    """Find the quantiles of the nonconformity, one for each question.

    Args:
        name: The head, for messages.
        seen: Rows that the temperature was not fitted on.
        calibration: Holds the temperature.
        alpha: The part of new rows whose truth the sets may miss.

    Raises:
        ValueError: If there are too few rows.
    """
    try:
        scores = seen.nonconformity(calibration.temperature)
        return tuple(metrics.quantile(scores[:, g], alpha) for g in range(scores.shape[1]))
    except ValueError as error:
        half = ""
        if seen.kind.calibration == "temperature":
            least = 2 * metrics.fewest(alpha)
            half = f"; the other half of the rows fits the temperature, so that at least {least} are needed in all"
        raise ValueError(f"conformal={alpha:g}: '{name}': {error}{half}") from None


def measure(seen: Seen | Heard, calibration: Calibration, tested: bool) -> tuple[dict[str, float], dict[str, Pair]]:
    """-> name -> number, and the choices before and after; nothing where no row is labelled.

    tested: whether these rows are others than those that it was fitted on, so that coverage tells something.
    """
    found: dict[str, float] = {"rows": seen.rows}
    pairs: dict[str, Pair] = {}
    if not found["rows"]:
        return {}, {}
    if isinstance(seen, Heard):
        found |= {"temperature": calibration.temperature, "bias": calibration.bias, "told": len(seen.told)}
    elif seen.kind.calibration == "temperature":
        found["temperature"] = calibration.temperature
    if seen.kind.calibration == "temperature" or (isinstance(seen, Heard) and seen.told):
        pairs = {"before": seen.choices(Calibration()), "after": seen.choices(calibration)}
        for mark, pair in (("_before", pairs["before"]), ("", pairs["after"])):
            found[f"calibration_error{mark}"] = metrics.calibration_error(*pair)
            found[f"nll{mark}"] = metrics.negative_log_likelihood(*pair)
    if tested and isinstance(seen, Seen) and calibration.quantiles and calibration.alpha is not None:
        scores = seen.nonconformity(calibration.temperature)
        parts = metrics.coverage(scores, calibration.quantiles)
        tempered = seen.tempered(calibration.temperature)
        decoding = seen.head.decoding
        told = [said.prediction_sets(calibration.quantiles, decoding, meta) for said, _, meta in tempered]
        kind = next(iter(told[0][0][0]))  # set or interval
        found |= {"coverage": sum(parts) / len(parts), "coverage_wanted": 1 - calibration.alpha}
        found |= {"coverage_lowest": min(parts)} if len(parts) > 1 else {}
        found[f"{kind}_size"] = float(torch.cat([size.double() for _, size in told]).mean())
    return found, pairs


def summary(fitted: Mapping[str, Calibration], results: Mapping[str, Mapping[str, float]], told: str) -> str:
    """The line of the model card.

    Args:
        fitted: The calibration of each head.
        results: The figures of each head, of the rows that `told` says.
        told: Which rows were used for what.
    """
    parts = []
    for name, calibration in fitted.items():
        found = results[name]
        part = f"{name}: temperature {calibration.temperature:.4g}"
        part += f", bias {calibration.bias:.4g}" if calibration.bias else ""
        if "calibration_error" in found:
            before, after = found["calibration_error_before"], found["calibration_error"]
            part += f", calibration error {before:.4f} before, {after:.4f} after"
        if calibration.alpha is not None:
            part += f", sets or intervals that hold the truth of {1 - calibration.alpha:.0%}"
            part += f" (measured {found['coverage']:.4f})" if "coverage" in found else ""
        parts.append(part)
    return f"by {told}; {'; '.join(parts)}."


def uses(seen: Mapping[str, Mapping[str, Seen | Heard]], alpha: float | None, seed: int) -> str:
    """Which rows were used for what, for the report and the model card.

    Args:
        seen: Place (val, and test where there is one) to what each head says of its rows.
        alpha: As in `fit`.
        seed: As in `fit`.
    """
    found = ""
    if alpha is not None:
        kinds = {name: one.kind for name, one in seen["val"].items()}
        halved = [f"'{n}'" for n, kind in kinds.items() if kind.has_sets and kind.calibration == "temperature"]
        if halved:
            found += f"; a random half of the labelled rows (seed={seed}) fitted the temperature of {', '.join(halved)}"
            found += ", and the other half the sets"
    if "test" in seen:
        return f"{found}; figures are of the test rows, which fitted nothing"
    return f"{found}; figures are of the same rows, there being no test rows: they flatter"


def show(results: Mapping[str, Mapping[str, float]]) -> None:
    """A line per head and split: place -> name -> number."""
    from rich.console import Console
    from rich.table import Column, Table

    names = list(dict.fromkeys(name for found in results.values() for name in found if not name.endswith("_before")))
    heads = [Column(cell(name.replace("_", " ")), overflow="fold") for name in names]
    table = Table(Column("", no_wrap=True), *heads)
    for place, found in results.items():
        cells = [f"{found[name]:.4g}" if name in found else "" for name in names]
        before = [f"{found[f'{name}_before']:.4g} -> " if f"{name}_before" in found else "" for name in names]
        table.add_row(cell(place), *(b + cell for b, cell in zip(before, cells)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
