"""Configs are composed from Python with the messages of the command."""

import traceback

import pytest
from hydra.core.global_hydra import GlobalHydra

from mm.assembly.compose import compose_config, model_overrides
from mm.types import DataSpec, InputData, TargetData

SPEC = DataSpec(
    inputs={"text": InputData(modality="text")}, targets={"mood": TargetData(kind="class", classes=("a", "b"))}
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.modality_dropuot=0.2", "no key 'task.modality_dropuot'; did you mean 'task.modality_dropout'"),
        (
            "model.heads.mood.label_smothing=0.1",
            "no key 'model.heads.mood.label_smothing'; did you mean 'model.heads.mood.",
        ),
        ("model/fusion=gatd", "model/fusion=gatd: there is no such option, .*did you mean 'gated'"),
        ("task.modality_dropout=[0.1", r"task.modality_dropout=.0.1: this value can't be read"),
    ],
)
def test_a_mistyped_override_is_one_sentence_with_the_nearest_name(override, message):
    before = GlobalHydra.instance().hydra
    with pytest.raises(ValueError, match=message) as caught:
        compose_config("train", [*model_overrides(SPEC, {}), override])
    assert GlobalHydra.instance().hydra is before
    assert "hydra.errors" not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
