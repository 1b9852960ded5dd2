"""Names of the values of metrics."""

import pytest
import torch
from omegaconf import OmegaConf
from tiny import build_data, train_model, write_rows
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from mm.assembly.finish import resolve_monitor
from mm.metrics.classification_report import ClassificationReport
from mm.tasks.measures import check_metric_names, monitored_names, read_scores, scores
from mm.tasks.supervised import Supervised


class Parity(Metric):
    """Two values by name, one of which has the name of another metric."""

    full_state_update = False
    higher_is_better = True

    def __init__(self, key: str = "accuracy"):
        super().__init__()
        self.key = key
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        return {"parity_gap": self.count / 10, self.key: self.count}


def accuracy():
    return MulticlassAccuracy(num_classes=2, average="micro")


def measure(metrics):
    measured = scores(metrics)
    measured["rows"].update(2)
    for name in metrics:
        measured[name].update(torch.eye(2), torch.tensor([0, 1]))
    return read_scores(measured, draw=False)[0]


@pytest.mark.parametrize("names", [("accuracy", "parity"), ("parity", "accuracy")])
def test_values_of_one_name_are_refused(names):
    made = {"accuracy": accuracy(), "parity": Parity()}
    with pytest.raises(ValueError, match=f"'{names[0]}' and '{names[1]}' both compute a value named 'accuracy'"):
        measure({name: made[name] for name in names})


def test_values_of_other_names_stand_beside_each_other():
    found = measure({"accuracy": accuracy(), "parity": Parity("parity_count")})
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"rows": 2, "accuracy": 1, "parity_gap": 0.2, "parity_count": 2}
    )
    with pytest.raises(ValueError, match="'rows' and 'parity' both compute a value named 'rows'"):
        measure({"parity": Parity("rows")})


def test_known_names_are_compared_before_the_training():
    report = ClassificationReport(classes=["a", "b"])
    check_metric_names("mood", {"accuracy": accuracy(), "report": report, "parity": Parity()})
    with pytest.raises(ValueError, match="^model.heads.mood.metrics: 'report' and 'f1_macro' both .* named 'f1_macro'"):
        check_metric_names("mood", {"report": report, "f1_macro": accuracy()})


def test_a_metric_of_several_values_is_not_monitored_by_its_own_name(tmp_path):
    assert monitored_names("parity", Parity()) == [] and monitored_names("accuracy", accuracy()) == ["accuracy"]
    model = train_model(build_data(write_rows(tmp_path / "a.csv", count=24)), steps=1).model
    names = Supervised(model=model, metrics={"target": {"accuracy": accuracy(), "parity": Parity("x")}}).val_names()
    with pytest.raises(ValueError, match="monitor.metric: got 'val/parity', wanted one of val/loss, val/accuracy"):
        resolve_monitor(OmegaConf.create({"monitor": {"metric": "val/parity", "mode": None}}), names)
