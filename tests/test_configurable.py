"""A part says how it was built, and is built again from that."""

import copy
import pickle
from pathlib import Path

import pytest
import torchmetrics
from torch import nn

from mm.configurable import Configurable, configured, recorded_arguments, to_config


class Scale(Configurable):
    def __init__(self, factor: float = 2.0, names: list[str] | None = None):
        self.factor, self.names = factor, names


class DoubleScale(Scale):
    def __init__(self, factor: float, extra: int = 1):
        super().__init__(2 * factor)
        self.extra = extra


class Inherited(Scale):
    pass


class Layer(Configurable, nn.Module):
    def __init__(self, inner: nn.Module, width: int, **more: int):
        super().__init__()
        self.inner = inner
        self.linear = nn.Linear(width, width)


def test_defaults_are_recorded():
    assert Scale().get_config() == {"factor": 2.0, "names": None}


def test_outermost_constructor_is_recorded():
    assert DoubleScale(3.0).get_config() == {"factor": 3.0, "extra": 1}
    assert to_config(DoubleScale(3.0))["_target_"] == f"{__name__}.DoubleScale"


def test_class_without_a_constructor_is_recorded_under_its_own_name():
    assert to_config(Inherited(1.0)) == {"_target_": f"{__name__}.Inherited", "factor": 1.0, "names": None}


def test_later_changes_of_an_argument_are_not_recorded():
    names = ["a"]
    scale = Scale(names=names)
    names.append("b")
    assert scale.get_config()["names"] == ["a"]


def test_nested_parts_and_paths_become_plain_data():
    layer = Layer(configured(nn.Linear, in_features=2, out_features=3), width=4, depth=Path("a/b"))  # type: ignore[arg-type]
    assert layer.get_config() == {
        "inner": {"_target_": "torch.nn.modules.linear.Linear", "in_features": 2, "out_features": 3},
        "width": 4,
        "depth": "a/b",
    }


def test_recorded_modules_are_not_registered_twice():
    inner = nn.Linear(2, 3)
    assert [name for name, _ in Layer(inner, width=4).named_children()] == ["inner", "linear"]


def test_copies_keep_the_record():
    scale = DoubleScale(3.0)
    for twin in (copy.deepcopy(scale), pickle.loads(pickle.dumps(scale))):
        assert twin.get_config() == scale.get_config()
    metric = configured(torchmetrics.MeanMetric, nan_strategy="ignore").clone()
    assert to_config(metric) == {"_target_": "torchmetrics.aggregation.MeanMetric", "nan_strategy": "ignore"}


def test_part_without_a_record_is_an_error_that_names_the_argument_and_the_fix():
    layer = Layer(nn.Linear(2, 3), width=4)
    with pytest.raises(ValueError, match=r"^inner: got an object of Linear, .*mm\.configured\(Linear, \.\.\.\)"):
        layer.get_config()
    with pytest.raises(ValueError, match="got an object of object"):
        recorded_arguments(object())


def test_wrong_argument_keeps_the_error_of_the_class():
    with pytest.raises(TypeError, match=r"Scale\.__init__\(\) got an unexpected keyword argument 'width'"):
        Scale(width=3)  # type: ignore[call-arg]
