"""A model that can't be saved is named before its training."""

import logging

import pytest
from torch import nn

import mm
from mm.assembly.saving import describe_saving_fault, warn_of_saving
from mm.configurable import configured
from mm.encoders import TextHashedNgrams
from mm.types import DataSpec, InputData, TargetData

SPEC = DataSpec(
    inputs={"text": InputData(modality="text")}, targets={"mood": TargetData(kind="class", classes=("a", "b"))}
)


class Scripted(TextHashedNgrams):
    """An encoder of a script."""


def build(encoder):
    return mm.build(SPEC, text=encoder, embed_dim=8)


def test_a_model_of_recorded_parts_has_no_fault(caplog):
    warn_of_saving(build("hashed_ngrams"), has_run=False)
    assert not caplog.records


def test_a_module_without_recorded_arguments_is_named_once(caplog):
    with caplog.at_level(logging.WARNING, "mm"):
        warn_of_saving(build(mm.wrap(nn.Linear(4, 8), modality="text", embed_dim=8)), has_run=False)
    (record,) = caplog.records
    assert record.name == "mm"
    assert "can be trained but not saved: " in record.getMessage()
    assert "got an object of Linear, which does not say how it was built" in record.getMessage()


def test_a_run_folder_refuses_such_a_model_by_itself():
    assert describe_saving_fault(build(mm.wrap(nn.Linear(4, 8), modality="text", embed_dim=8)), has_run=True) == ""


@pytest.mark.parametrize("has_run", [False, True])
def test_a_class_of_the_script_is_to_be_moved_to_a_module(monkeypatch, has_run):
    monkeypatch.setattr(Scripted, "__module__", "__main__")
    note = describe_saving_fault(build(configured(Scripted, embed_dim=8)), has_run)
    assert "the class Scripted is defined in __main__" in note and "move it to a module" in note


def test_training_warns_at_its_start(caplog):
    data = mm.Manifest([{"text": f"it is {n}", "mood": "ab"[n % 2]} for n in range(20)], targets=["mood"])
    model = build(mm.wrap(nn.Linear(4, 8), modality="text", embed_dim=8))
    with pytest.raises(ValueError, match="no key 'task.wrong'"):
        mm.train(model, data, overrides=["task.wrong=1"])
    assert sum("can be trained but not saved" in record.getMessage() for record in caplog.records) == 1
