"""What may change while a run goes on, and what may not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mm.assembly.resuming import check_resumable, save_rows
from mm.fingerprints import Fingerprint

BEGUN = {
    "seed": 0,
    "model": {"embed_dim": 8},
    "datamodule": {
        "path": "a.csv",
        "batch_size": 4,
        "transforms": {"text": {"max_length": 16}, "numbers": {"columns": ["age", "height"]}},
    },
    "trainer": {"max_epochs": 2},
}


def goes_on(tmp_path, **changed):
    OmegaConf.save(OmegaConf.create(BEGUN), tmp_path / "config.yaml")
    now = OmegaConf.create(BEGUN)
    for key, value in changed.items():
        OmegaConf.update(now, key.replace("__", "."), value)
    check_resumable(now, tmp_path, rows(2, 1))


def rows(*digests):
    """A datamodule whose training rows have these digests."""
    found = Fingerprint({"train": torch.tensor(digests)}, {})
    splits = np.array(["train"] * len(digests))
    return SimpleNamespace(fingerprint=found, splits=splits, row_name="row {}".format)


def test_how_rows_are_fed_and_how_long_may_change(tmp_path, printed_log):
    goes_on(tmp_path, datamodule__batch_size=8, datamodule__transforms__text__max_length=32, trainer__max_epochs=3)
    assert printed_log.readouterr().out.splitlines() == [
        "changed since the run began: datamodule.batch_size was 4, now it is 8",
        "changed since the run began: datamodule.transforms.text.max_length was 16, now it is 32",
        "changed since the run began: trainer.max_epochs was 2, now it is 3",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("model.embed_dim", 16),
        ("datamodule.path", "b.csv"),
        ("datamodule.transforms.numbers.columns", ["height", "age"]),  # another number for each
    ],
)
def test_the_model_and_its_data_stay(tmp_path, key, value):
    with pytest.raises(ValueError, match=rf"resume=true: {key} was .*, now it is .*; a run keeps its model and its"):
        goes_on(tmp_path, **{key.replace(".", "__"): value})


def test_a_key_that_is_gone_has_changed(tmp_path):
    OmegaConf.save(OmegaConf.create(BEGUN), tmp_path / "config.yaml")
    now = OmegaConf.create({**BEGUN, "model": {}})
    with pytest.raises(ValueError, match="model.embed_dim was 8, now it is None"):
        check_resumable(now, tmp_path, None)


@pytest.mark.parametrize("key", ["model__embed_dim", "datamodule__transforms__numbers__columns"])
def test_rows_come_before_what_follows_from_them(tmp_path, key):
    save_rows(rows(1, 2), tmp_path)
    with pytest.raises(ValueError, match="the data has changed since the run began: train: its rows are in another"):
        goes_on(tmp_path, **{key: 3})
    with pytest.raises(ValueError, match="datamodule.path was a.csv, now it is b.csv"):
        goes_on(tmp_path, **{key: 3, "datamodule__path": "b.csv"})
    save_rows(rows(2, 1), tmp_path)
    with pytest.raises(ValueError, match=f"resume=true: {key.replace('__', '.')} was"):
        goes_on(tmp_path, **{key: 3})
    goes_on(tmp_path)
