"""What is typed is what is meant: values that Hydra would refuse or read otherwise, names of runs, types of values."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mm.annotations import fits
from mm.assembly.config_types import check_types, describe_type, hint_of
from mm.cli._typed import as_meant, check_run


def read(arg: str, sweep: bool = False) -> Any:
    return OverridesParser.create().parse_override(as_meant(arg, sweep)).value()


@pytest.mark.parametrize(
    "value",
    ["1e3", "true", "007", "1_000", "inf", "café", "my run (2)", "a,b", "a'b", 'say "x"', "a\\", "50%", "a;b"],
)
@pytest.mark.parametrize("key", ["run", "checkpoint", "datamodule.path", "datamodule.columns.text", "paths.outputs"])
def test_texts_come_through_as_they_are_typed(key, value):
    if key.startswith("datamodule.columns") and value == "true":
        return  # a switch: datamodule.columns.id=false
    assert read(f"{key}={value}") == value


@pytest.mark.parametrize(
    ("arg", "value"),
    [
        ("monitor.metric=val[text]/accuracy", "val[text]/accuracy"),
        ("datamodule.path=[a é.csv,{path: b (2).csv, weight: 2.0}]", ["a é.csv", {"path": "b (2).csv", "weight": 2.0}]),
        ("datamodule.columns.targets={kind: Größe, price: eur}", {"kind": "Größe", "price": "eur"}),
        ("datamodule.columns.tabular=[âge,city]", ["âge", "city"]),
        ("task.optimizer.lr=1e-3", 1e-3),
        ("datamodule.columns.id=false", False),
        ("datamodule.columns.id=null", None),
        ("task.freeze=['^encoders\\.text']", ["^encoders\\.text"]),
        ("paths.cache=${oc.env:HOME}/x", "${oc.env:HOME}/x"),
    ],
)
def test_other_values_are_read_as_hydra_reads_them_or_as_texts(arg, value):
    assert read(arg) == value


def test_random_texts_of_a_run_come_through():
    rng = random.Random(0)
    alphabet = "aé9.-_ ()[]{}'\"\\,:=#&;<>!~@%+*?|^日e"
    for _ in range(500):
        text = "a" + "".join(rng.choices(alphabet, k=rng.randint(0, 8)))
        if text.strip() == text:
            assert read(f"run={text}") == text


def test_a_sweep_keeps_its_commas():
    override = OverridesParser.create().parse_override(as_meant("datamodule.path=a.csv,b.csv", sweep=True))
    assert override.is_sweep_override()
    override = OverridesParser.create().parse_override(as_meant("x.path=a é.csv,b.csv", sweep=True))
    assert override.is_sweep_override()


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x", "", " ", None, 3.0, True, "a\nb", "~/x"])
def test_what_names_no_run_is_refused(name):
    with pytest.raises(ValueError, match="^run: got"):
        check_run(name)
    check_run("a/b (2) é")


ACCEPTED = [
    (1, int), (1, float), (1.5, float), ("a", str), ("a", bool | str), (True, bool | str), (None, int | None),
    ([1, 2], tuple[int, int]), ([1, 2], Sequence[int]), ({"a": 1}, Mapping[str, int]),
    ({"_target_": "x"}, torch.nn.Module),
    ("x", Any), ("mean", Literal["mean", "max"]), ("a.csv", Path), ({"_target_": "x"}, Callable[..., Any]), ([], list),
]  # fmt: skip
REFUSED = [
    (1.5, int), (True, int), ("a", int), ("a", float), (True, float), ("yes", bool), (1, bool), (1, str),
    (64, tuple[int, int]),
    ([1], tuple[int, int]), ("a", Sequence[str]), ([1.5], Sequence[int]), (["a"], Mapping[str, str]), ("a", dict),
    ("x", torch.nn.Module), ("fast", float | torch.Tensor), ("median", Literal["mean", "max"]), (1, Callable[..., Any]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "hint"), ACCEPTED)
def test_values_that_fit_an_annotation(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(("value", "hint"), REFUSED)
def test_values_that_do_not_fit_an_annotation(value, hint):
    assert not fits(value, hint)
    assert describe_type(hint)


def test_the_message_names_the_key():
    cfg = OmegaConf.create(
        {"vision": {"_target_": "mm.transforms.vision.pixels.ImageTransform", "size": 64}, "seed": 1.5}
    )
    with pytest.raises(ValueError, match=r"vision\.size: got 64, wanted a list, such as \[64, 64\]"):
        check_types(cfg, lambda: cfg, {"vision.size": 64})
    with pytest.raises(ValueError, match="seed: got 'x', wanted a number"):
        check_types(cfg, lambda: OmegaConf.create({"seed": 0}), {"seed": "x"})


def test_keywords_are_looked_up_through_the_parents():
    from mm.datamodules.manifest import ManifestDataModule

    assert hint_of(ManifestDataModule, "batch_size") is int
    assert hint_of(ManifestDataModule, "nothing") is None
