"""A head of an outsider, with two methods, gets all that the heads of `mm` have."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mm as package
from mm.contracts import check_part
from mm.heads import Head
from mm.predictions import Categorical
from mm.types import IGNORE


class OrdinalHead(Head):
    """Ordinal regression by cumulative links (McCullagh 1980): one score, and ordered thresholds between classes."""

    def __init__(self, *, classes, embed_dim, weight=1.0):
        super().__init__(classes=classes, weight=weight)
        self.score = nn.Linear(embed_dim, 1)
        self.gaps = nn.Parameter(torch.zeros(len(classes) - 1))

    def forward(self, fused, target=None):
        thresholds = F.softplus(self.gaps).cumsum(0)
        above = F.sigmoid(self.score(fused.pooled).float() - thresholds)  # (B, C - 1) probability of a higher class
        above = torch.cat([torch.ones_like(above[:, :1]), above, torch.zeros_like(above[:, :1])], dim=1)
        return Categorical((above[:, :-1] - above[:, 1:]).clamp(min=1e-7).log())

    def loss(self, prediction, target, fused):
        total = F.cross_entropy(prediction.logits, target, ignore_index=IGNORE, reduction="sum")
        return total, (target != IGNORE).sum().float()


YAML = f"""# @package model.heads.target
_target_: {__name__}.OrdinalHead
classes: ???
embed_dim: ${{model.embed_dim}}
target_codec:
  _target_: mm.targets.classes.ClassTarget
metrics:
  accuracy:
    _target_: torchmetrics.classification.MulticlassAccuracy
    num_classes: ???
    average: micro
"""


def test_it_keeps_the_contract():
    results = dict(check_part(OrdinalHead).results)
    assert not [message for message in results.values() if message is not None]
    assert {"calibrated", "conformal", "export", "gradients"} <= set(results)


def test_an_outsiders_head_has_everything(mm, manifest, tmp_path):
    from conftest import COLUMNS, TINY

    trust = f"allow=[{__name__.split('.')[0]}]"
    data = ["datamodule=manifest", f"datamodule.path={manifest}"]
    (tmp_path / "my_conf/model/heads").mkdir(parents=True)
    (tmp_path / "my_conf/model/heads/ordinal.yaml").write_text(YAML)
    own = ["--config-dir", str(tmp_path / "my_conf"), "model/heads=ordinal"]
    run = mm("train", *own, *COLUMNS, data[1], *TINY, trust, "trainer.max_epochs=4", "run=ordinal")
    assert run.status == 0, run.err
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert {"test/accuracy", "test[text]/accuracy", "test[vision+audio]/accuracy"} <= set(metrics)
    assert (run.folder / "predictions.parquet").is_file()
    model = run.folder / "model"
    calibrated = mm("calibrate", f"checkpoint={model}", *data, "alpha=0.3", trust)
    assert calibrated.status == 0, calibrated.err
    answer = package.load(model, allow=[__name__.split(".")[0]]).predict({"text": "it is red"})["target"]
    assert answer["prediction"] in answer["prediction_set"] and sum(answer["probability"].values()) == pytest.approx(1)
    curves = mm("evaluate", f"checkpoint={model}", *data, "robustness=default", "robustness.severities=[0,1]", trust)
    assert curves.status == 0, curves.err
    assert (curves.folder / "robustness.csv").is_file()
