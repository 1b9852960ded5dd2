"""Configs of earlier versions."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from mm.assembly.renamed import MOVED, current_name, rename_targets
from mm.assembly.resuming import check_resumable
from mm.cli._mistakes import explain


def test_only_our_own_modules_have_another_name():
    assert current_name("datamodules.digits.DigitsDataModule") == "mm.datamodules.digits.DigitsDataModule"
    for name in (
        "datamodules.mine.Mine",
        "mm.datamodules.digits.X",
        "datamodules",
        "datamodules.digits",
        "torch.nn.Linear",
    ):
        assert current_name(name) == name


@pytest.mark.parametrize("old", MOVED)
def test_moved_classes_are_found_under_their_new_name(old):
    assert get_class(current_name(old))


def test_every_target_of_a_config_is_renamed():
    old = {"a": {"_target_": "datamodules.digits.X", "b": [{"_target_": "datamodules.fsdd.Y"}, None, 1]}, "c": None}
    found = rename_targets(old | {"d": "${a.b}", "e": "???"})
    assert found["a"]["_target_"] == "mm.datamodules.digits.X"
    assert found["a"]["b"] == [{"_target_": "mm.datamodules.fsdd.Y"}, None, 1]
    assert found["d"] == "${a.b}"


def test_a_run_with_the_old_name_goes_on(tmp_path, capsys):
    node = {"_target_": "datamodules.digits.DigitsDataModule", "batch_size": 8}
    OmegaConf.save(OmegaConf.create({"datamodule": node, "seed": 0}), tmp_path / "config.yaml")
    now = OmegaConf.create({"datamodule": node | {"_target_": f"mm.{node['_target_']}"}, "seed": 0})
    check_resumable(now, tmp_path, None)  # of an older mm, which kept no rows
    assert capsys.readouterr().out == ""


def test_the_old_name_is_told_the_new_one(monkeypatch):
    monkeypatch.setattr("sys.path", [])  # a checkout has a folder of this name
    monkeypatch.delitem(__import__("sys").modules, "datamodules", raising=False)
    config = OmegaConf.create({"datamodule": {"_target_": "datamodules.digits.DigitsDataModule"}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(config.datamodule)
    said = explain(caught.value, "train")
    assert said is not None
    assert said.endswith("datamodules.digits.DigitsDataModule is now mm.datamodules.digits.DigitsDataModule")
