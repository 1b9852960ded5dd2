"""Metrics, tables and artifacts that are logged to W&B, with a stub in place of its run."""

from types import SimpleNamespace

from lightning.pytorch.loggers import WandbLogger

from mm.assembly.wandb_run import WandbRunLogger, finish_wandb, start_wandb, table_rows


class FakeRun:
    """Stub of a run of W&B, which records its calls."""

    name, id = "sweep/0", "abc"

    def __init__(self):
        self.points, self.defined, self.summary, self.artifacts, self.ended = [], {}, {}, [], False

    def log(self, point):
        self.points.append(point)

    def define_metric(self, name, step_metric, step_sync, summary):
        assert (step_metric, step_sync) == ("trainer/global_step", True)
        self.defined[name] = summary

    def log_artifact(self, artifact, aliases):
        self.artifacts.append((artifact.name, aliases))

    def finish(self):
        self.ended = True


def test_a_test_makes_no_points():
    run = FakeRun()
    logger = WandbRunLogger(experiment=run)
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"test/loss": 1.0, "test[text]/accuracy": 0.5, "epoch": 3}, step=7)
    assert run.points == []
    logger.log_metrics({"val/loss": 1.0, "epoch": 3}, step=7)
    logger.log_metrics({"epoch": 4}, step=8)
    logger.log_metrics({"val/loss": 1.0, "test/loss": 2.0}, step=9)
    assert run.points == [
        {"val/loss": 1.0, "epoch": 3, "trainer/global_step": 7},
        {"epoch": 4, "trainer/global_step": 8},
        {"val/loss": 1.0, "trainer/global_step": 9},
    ]


def test_the_summary_keeps_best_and_last_of_a_validation():
    run = FakeRun()
    start_wandb(SimpleNamespace(experiment=run), {"val/loss": False, "val/f1": True, "val/width": None})
    assert run.defined == {"val/loss": "min,last", "val/f1": "max,last", "val/width": "last"}


def test_a_table_has_a_row_for_each_number_of_a_test():
    results = {"train/steps": 3, "val/loss": 0.1, "test/loss": 0.2, "test[text+audio]/mood/f1/glad": 0.3}
    assert table_rows(results) == [["test", "all", "loss", 0.2], ["test", "text+audio", "mood/f1/glad", 0.3]]


def test_the_end_of_a_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    run = FakeRun()
    results = {"val/loss": 0.1, "test/loss": 0.2, "train/epochs": 2}
    finish_wandb(run, SimpleNamespace(global_step=9), {}, results, {"model": tmp_path}, {"val/loss": False})
    (point,) = run.points
    assert point["trainer/global_step"] == 9
    assert point["test/results"].columns == ["split", "subset", "metric", "value"]
    assert point["test/results"].data == [["test", "all", "loss", 0.2]]
    assert run.artifacts == [("sweep_0", ["latest", "best", "sweep_0"])]
    assert run.summary == {"best/val/loss": 0.1, "test/loss": 0.2, "train/epochs": 2}
    assert run.ended
