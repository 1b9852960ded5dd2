"""Names of earlier versions: saved configs are upgraded, and typed names are answered with the current ones."""

import inspect
import sys
from functools import partial
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from mm.assembly.config_choices import compose_chosen, target_at
from mm.assembly.resuming import check_resumable
from mm.cli import main
from mm.cli._mistakes import explain
from mm.fusion.bottleneck import BottleneckFusion
from mm.renames import (
    ARGUMENTS,
    CLASSES,
    KEYS,
    OPTIONS,
    VALUES,
    VERBS,
    current_class,
    current_key,
    upgrade,
    upgrade_keys,
)

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def test_only_our_own_modules_have_another_name():
    assert current_class("datamodules.digits.DigitsDataModule") == "mm.datamodules.digits.DigitsDataModule"
    for name in (
        "datamodules.mine.Mine",
        "mm.datamodules.digits.X",
        "datamodules",
        "datamodules.digits",
        "torch.nn.Linear",
    ):
        assert current_class(name) == name


@pytest.mark.parametrize("old", CLASSES)
def test_moved_classes_are_found_under_their_current_name(old):
    assert get_class(current_class(old))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_have_the_current_name_only(name):
    parameters = set()
    for base in get_class(name).__mro__:
        if "__init__" in vars(base):
            parameters |= set(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    assert set(ARGUMENTS[name].values()) <= parameters
    assert not set(ARGUMENTS[name]) & parameters


def test_values_are_of_arguments_that_exist():
    for name, values in VALUES.items():
        assert set(values) <= set(inspect.signature(get_class(name)).parameters), name


def test_options_and_verbs_have_the_current_name_only():
    for old, new in OPTIONS.items():
        assert not (CONF / f"{old}.yaml").exists(), old
        assert (CONF / old).with_name(f"{new}.yaml").exists(), new
    for old, new in VERBS.items():
        assert not (ROOT / "mm" / "cli" / f"{old}.py").exists()
        assert (ROOT / "mm" / "cli" / f"{new}.py").exists()


def test_every_name_is_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    names = [old for arguments in ARGUMENTS.values() for pair in arguments.items() for old in pair]
    names += [name for pair in KEYS.items() for name in pair] + [*VERBS, *VERBS.values(), *OPTIONS.values()]
    assert not [name for name in names if f"`{name}`" not in text and f"{name}`" not in text]


def test_every_class_of_a_config_is_renamed():
    old = {"a": {"_target_": "datamodules.digits.X", "b": [{"_target_": "datamodules.fsdd.Y"}, None, 1]}, "c": None}
    upgraded = upgrade(old | {"d": "${a.b}", "e": "???"})
    assert upgraded["a"]["_target_"] == "mm.datamodules.digits.X"
    assert upgraded["a"]["b"] == [{"_target_": "mm.datamodules.fsdd.Y"}, None, 1]
    assert upgraded["d"] == "${a.b}"


def test_arguments_and_values_of_a_saved_config_are_upgraded(monkeypatch):
    target = "mm.fusion.bottleneck.BottleneckFusion"
    monkeypatch.setitem(VALUES, target, {"num_heads": {4: 8}})
    changes: dict[str, str] = {}
    node = {"model": {"fusion": {"_target_": target, "heads": 4, "layers": 2, "dropout": 0.1}}, "heads": 1}
    assert upgrade(node, changes) == {
        "model": {"fusion": {"_target_": target, "num_heads": 8, "num_layers": 2, "dropout": 0.1}},
        "heads": 1,
    }
    assert changes == {
        "BottleneckFusion.heads": "num_heads",
        "BottleneckFusion.num_heads=4": "8",
        "BottleneckFusion.layers": "num_layers",
    }
    assert node["model"]["fusion"]["heads"] == 4


def test_former_key_has_a_current_one(monkeypatch):
    monkeypatch.setitem(KEYS, "callbacks.former", "callbacks.current")
    composed, _ = compose_chosen("train", ["model/fusion=bottleneck"])
    current = partial(current_key, target_of=partial(target_at, composed))
    assert current("model.fusion.heads") == "model.fusion.num_heads"
    assert current("callbacks.former.rows") == "callbacks.current.rows"
    assert current("model.fusion.num_heads") is None
    assert current("nothing.like.this") is None


def test_keys_of_a_saved_config_are_upgraded(monkeypatch):
    monkeypatch.setitem(KEYS, "task.former", "task.current.weight")
    heads = {"a": {"reads": {"x": 1}, "weight": 1.0}, "b": {"target_codec": None}}
    changes: dict[str, str] = {}
    upgraded = upgrade_keys({"model": {"heads": heads}, "task": {"former": 2, "current": {"y": 3}}}, changes)
    assert upgraded == {
        "model": {"heads": {"a": {"weight": 1.0, "target_codec": {"x": 1}}, "b": {"target_codec": None}}},
        "task": {"current": {"y": 3, "weight": 2}},
    }
    assert changes == {
        "model.heads.a.reads": "model.heads.a.target_codec",
        "task.former": "task.current.weight",
    }
    assert "reads" in heads["a"]


@pytest.mark.parametrize(
    "override",
    [
        "model.fusion.heads=8",
        "+model.fusion.heads=8",
        "model.heads.target.reads={}",
        "+model.heads.target.reads={}",
        "model.heads.target.reads.scheme=bio",
    ],
)
def test_typed_former_key_is_answered_with_the_current_one(override, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["mm", "train", "model/fusion=bottleneck", override, f"paths.outputs={tmp_path}"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    key = override.partition("=")[0].lstrip("+")
    current = key.replace("fusion.heads", "fusion.num_heads").replace("reads", "target_codec")
    assert capsys.readouterr().err.strip() == f"mm: {key} is now {current}"


def test_former_argument_is_answered_from_python():
    with pytest.raises(TypeError, match="BottleneckFusion: the argument `heads` is now `num_heads`"):
        BottleneckFusion(inputs=["a"], embed_dim=8, heads=2)  # type: ignore[call-arg]


def test_former_option_and_verb_are_answered(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(OPTIONS, "model/fusion/former", "gated")
    monkeypatch.setitem(VERBS, "former", "train")
    for words, answer in (
        (
            ["train", "model/fusion=former", f"paths.outputs={tmp_path}"],
            "model/fusion=former is now model/fusion=gated",
        ),
        (["former"], "mm former is now mm train"),
    ):
        monkeypatch.setattr(sys, "argv", ["mm", *words])
        with pytest.raises(SystemExit):
            main()
        assert capsys.readouterr().err.strip() == f"mm: {answer}"


def test_a_run_with_the_old_name_is_resumed(tmp_path, capsys):
    node = {"_target_": "datamodules.digits.DigitsDataModule", "batch_size": 8}
    OmegaConf.save(OmegaConf.create({"datamodule": node, "seed": 0}), tmp_path / "config.yaml")
    now = OmegaConf.create({"datamodule": node | {"_target_": f"mm.{node['_target_']}"}, "seed": 0})
    check_resumable(now, tmp_path, None)  # of an older mm, which kept no rows
    assert capsys.readouterr().out == ""


def test_the_old_class_name_is_answered_with_the_current_one(monkeypatch):
    monkeypatch.setattr("sys.path", [])  # a checkout has a folder of this name
    monkeypatch.delitem(sys.modules, "datamodules", raising=False)
    config = OmegaConf.create({"datamodule": {"_target_": "datamodules.digits.DigitsDataModule"}})
    with pytest.raises(InstantiationException) as caught:
        instantiate(config.datamodule)
    message = explain(caught.value, "train")
    assert message is not None
    assert message.endswith("datamodules.digits.DigitsDataModule is now mm.datamodules.digits.DigitsDataModule")
