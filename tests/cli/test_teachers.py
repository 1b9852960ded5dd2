"""A trained model teaches one input of another, or is refused for what does not fit."""

from pathlib import Path

import pytest
from conftest import COLUMNS, TINY

BASE = [*COLUMNS, *TINY, "trainer.max_epochs=1", "task.optimizer.lr=0.01"]


@pytest.fixture
def teacher(mm, manifest) -> Path:
    args = [a for a in BASE if not a.startswith(("model.encoders.text", "model.encoders.vision"))]
    run = mm("train", *args, f"datamodule.path={manifest}", "datamodule.inputs=[audio]", "run=teacher")
    assert run.status == 0, run.err
    return run.folder / "model"


def test_a_student_comes_nearer_to_its_teacher(mm, manifest, teacher, tmp_path):
    args = [*BASE, f"datamodule.path={manifest}", "trainer.log_every_n_steps=1", "trainer.max_epochs=3"]
    run = mm("train", *args, f"task.distillation.teachers={{audio: {teacher}}}", "run=student")
    assert run.status == 0, run.err
    lines = (tmp_path / "outputs/student/csv/version_0/metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("train[audio]/teacher_loss")
    losses = [float(x) for x in (line.split(",")[place] for line in lines[1:]) if x]
    assert losses[-1] < 0.7 * losses[0]
    again = mm("train", "run=student", "resume=true", "trainer.max_epochs=4")
    assert again.status == 0, again.err


def test_what_does_not_fit_is_told(mm, manifest, teacher):
    args = [*BASE, f"datamodule.path={manifest}", "run=student"]
    for more, told in (
        (
            [f"task.distillation.teachers={{adio: {teacher}}}"],
            "task.distillation.teachers: there is no input 'adio', only text, vision, audio",
        ),
        ([f"task.distillation.teachers={{text: {teacher}}}"], "reads audio, not text"),
        (["task.distillation.teachers={text: nowhere}"], "no model directory at nowhere"),
        (
            [f"task.distillation.teachers={{audio: {teacher}}}", "model.embed_dim=8"],
            "its model.embed_dim is 16, this model's is 8",
        ),
        (
            [f"task.distillation.teachers={{audio: {teacher}}}", "datamodule.transforms.audio.sample_rate=4000"],
            "task.distillation.teachers.audio: it was trained with sample_rate=8000, this run reads audio with 4000",
        ),
        (
            [f"task.distillation.teachers={{audio: {teacher}}}", "task.freeze=[encoders.audio]"],
            "the encoder that it teaches is frozen and computed once",
        ),
    ):
        run = mm("train", *args, *more)
        assert run.status == 2, run.err
        assert told in run.err
        assert "Traceback" not in run.err
