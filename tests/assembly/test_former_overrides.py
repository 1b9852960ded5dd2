"""A run of an earlier version is resumed with the current names of what it was started with."""

from pathlib import Path

import pytest

from mm.assembly import former_overrides as module
from mm.assembly.former_overrides import current_overrides, resumed_overrides


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("model.fusion.heads=8", "model.fusion.num_heads=8"),
        ("+model.heads.target.reads.flat=refuse", "+model.heads.target.target_codec.degenerate_boxes=error"),
        ("model.heads.target.reads.flat=drop", "model.heads.target.target_codec.degenerate_boxes=drop"),
        ("callbacks=[default,kept]", "callbacks=[default,save_at_steps]"),
        ("callbacks.kept.steps=[10,20]", "callbacks.save_at_steps.steps=[10,20]"),
        ("~callbacks.samples", "~callbacks.prediction_table"),
        ("task.test_subsets=[text,text+audio]", "task.modality_subsets.test=[text,text+audio]"),
        ("task.optimizer.lr=0.1", "task.optimizer.lr=0.1"),
        ("run=kept", "run=kept"),
    ],
)
def test_an_override_has_the_current_names(former: str, current: str) -> None:
    chosen = ["model/fusion=bottleneck", "model/heads=detection"]
    assert current_overrides("train", [*chosen, former]) == [*chosen, current]


def test_an_option_has_the_current_name() -> None:
    former = ["task=masked_language", "+task/objectives@task.objectives.sound=masked_sound", "task.label=masked_sound"]
    current = ["task=masked_lm", "+task/objectives@task.objectives.sound=masked_audio", "task.label=masked_sound"]
    assert current_overrides("train", former) == current


def test_nothing_is_composed_for_current_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compose_chosen", None)
    words = ["model/fusion=gated", "trainer.max_epochs=2", "seed=3"]
    assert current_overrides("train", words) == words


def test_a_resumed_run_is_read_with_current_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/a").mkdir(parents=True)
    Path("outputs/a/overrides.yaml").write_text("[run=a, callbacks.bar.refresh_rate=5, seed=3]", encoding="utf-8")
    assert resumed_overrides("train", ["run=a", "resume=true"]) == ["callbacks.progress_bar.refresh_rate=5", "seed=3"]
    again = ["run=a", "resume=true", "callbacks.progress_bar.refresh_rate=1"]
    assert resumed_overrides("train", again) == ["seed=3"]
