"""What is fitted to which rows."""

import statistics
from types import SimpleNamespace

import pytest
import torch

from mm.calibration.fitting import ConfidenceFitter, LogitFitter, fit_calibrations
from mm.heads.classification import ClassificationHead
from mm.heads.ctc import CTCHead
from mm.heads.regression import RegressionHead
from mm.predictions import Categorical, Transcript


def batches_of(sizes, unlabelled=()):
    """Batches whose predictions are the numbers of the rows."""
    places = torch.arange(sum(sizes)).split(sizes)
    masks = [torch.isin(rows, torch.tensor(unlabelled, dtype=torch.long)) for rows in places]
    return [(Categorical(rows.view(-1, 1)), torch.where(mask, -100, 0), {}) for rows, mask in zip(places, masks)]


def test_what_a_head_does_not_tell_is_said_by_name():
    model = SimpleNamespace(heads={"size": RegressionHead(embed_dim=4, mean=0.0, std=1.0)})
    with pytest.raises(ValueError, match="calibrated: size: no temperature: a RegressionHead predicts no"):
        fit_calibrations(model, {}, None, 0)
    head = CTCHead(classes=["a"], input="audio", separator="", embed_dim=4)
    model = SimpleNamespace(heads={"said": head})
    with pytest.raises(
        ValueError, match="no temperature: all 2 of .* right.*; no sets: a CTCHead has no prediction sets"
    ):
        fit_calibrations(model, {"said": ConfidenceFitter(head, Transcript, [0.4, 0.9], [True, True], 2)}, 0.1, 0)
    with pytest.raises(ValueError, match="nothing is predicted for its 3 labelled rows"):
        fit_calibrations(model, {"said": ConfidenceFitter(head, Transcript, [], [], 3)}, None, 0)


@pytest.mark.parametrize("sizes", [[14], [1] * 14, [5, 8, 1]])
def test_temperature_and_sets_are_fitted_to_rows_of_their_own(sizes):
    first, second = LogitFitter(None, Categorical, batches_of(sizes, unlabelled=[3])).halves(0)
    parts = [{int(x) for said, *_ in part.batches for x in said.logits} for part in (first, second)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(range(14)) - {3}
    assert [part.rows for part in (first, second)] == [7, 6]
    whole = LogitFitter(None, Categorical, batches_of([14], unlabelled=[3])).halves(0)  # however rows are batched
    assert {int(x) for said, *_ in whole[0].batches for x in said.logits} == parts[0]
    other = LogitFitter(None, Categorical, batches_of(sizes, unlabelled=[3])).halves(1)
    assert {int(x) for said, *_ in other[0].batches for x in said.logits} != parts[0]


def test_sets_cover_new_rows_though_the_temperature_was_fitted_to_few():
    """Over many drawings, the mean coverage of new rows is at least what was promised, and hardly more."""
    generator, covered, alpha = torch.Generator().manual_seed(0), [], 0.2
    head = ClassificationHead(classes=list("abcde"), embed_dim=4)
    for trial in range(200):
        truth = torch.randint(0, 5, (538,), generator=generator)
        logits = 3 * torch.randn(538, 5, generator=generator)
        logits[torch.arange(538), truth] += 2
        model = SimpleNamespace(heads={"target": head})
        seen = LogitFitter(head, Categorical, [(Categorical(logits[:38]), truth[:38], {})])
        fitted, _ = fit_calibrations(model, {"target": seen}, alpha, trial)
        rest = LogitFitter(head, Categorical, [(Categorical(logits[38:]), truth[38:], {})])
        new = rest.nonconformity(fitted["target"].temperature)
        covered.append(float((new[:, 0] <= fitted["target"].quantiles[0]).double().mean()))
    mean, error = statistics.mean(covered), statistics.stdev(covered) / len(covered) ** 0.5
    assert 1 - alpha - 3 * error < mean < 1 - alpha + 1 / 20 + 3 * error  # 19 rows fit the sets


def test_too_few_rows_for_both_halves_are_counted():
    head = ClassificationHead(classes=["a", "b"], embed_dim=4)
    truth = torch.arange(30) % 2
    logits = Categorical(torch.randn(30, 2, generator=torch.Generator().manual_seed(0)))
    seen = LogitFitter(head, Categorical, [(logits, truth, {})])
    with pytest.raises(ValueError, match="15 labelled rows, wanted at least 19.*at least 38 are needed in all"):
        fit_calibrations(SimpleNamespace(heads={"target": head}), {"target": seen}, 0.05, 0)
    one = LogitFitter(head, Categorical, [(Categorical(torch.randn(1, 2)), truth[:1], {})])
    with pytest.raises(ValueError, match="alpha=0.5: 'target': .*at least 2 are needed in all"):
        fit_calibrations(SimpleNamespace(heads={"target": head}), {"target": one}, 0.5, 0)
