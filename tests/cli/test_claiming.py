"""Which folder a command works in, seen from the command line: single runs, restarts, sweeps."""

import datetime
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from mm.assembly.provenance import Provenance
from mm.cli._app import launch
from mm.runs.folder import claim, reopen

VERBS = {
    "train": [],
    "benchmark": [],
    "scale_batch": [],
    "check_data": [],
    "evaluate": ["checkpoint=none", "datamodule.path=rows.csv"],
    "predict": ["checkpoint=none", "datamodule.path=rows.csv"],
    "embed": ["checkpoint=none", "datamodule.path=rows.csv"],
    "calibrate": ["checkpoint=none", "datamodule.path=rows.csv"],
    "shard": ["out=shards", "datamodule.path=rows.csv"],
}


def state(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Path -> content, mode and time of change of everything in a folder, itself included."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (content, path.stat().st_mode, path.stat().st_mtime_ns)
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Run a command whose job only leaves a file with its seed. -> the folders of its jobs"""
    monkeypatch.chdir(tmp_path)

    def command(*argv: str, job: Callable[[DictConfig, Path, Provenance], Any] | None = None) -> list[Path]:
        folders = []

        def leave(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
            folders.append(folder)
            if job is not None:
                job(cfg, folder, provenance)
            (folder / "seed").write_text(str(cfg.seed))

        monkeypatch.setattr(sys, "argv", ["mm", "train", *argv])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        launch("train", list(argv), leave)
        return folders

    return command


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command is typed in the same second."""

    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("hydra.core.utils.datetime", Now)


NAME = "train-2026-01-02_03-04-05"


@pytest.mark.parametrize("how", ["run=mine", "hydra.run.dir=outputs/mine"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_with_foreign_files_is_refused_and_left_as_it_was(mm, tmp_path, monkeypatch, verb, how):
    for name in ("notes/README", "src/Makefile", "config.yaml", "csv/version_0/hparams.yaml", "empty/deeper"):
        file = tmp_path / "outputs/mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a: three weeks of work\n")
    (tmp_path / "outputs/mine/empty/deeper").unlink()
    (tmp_path / "rows.csv").write_text("words\nred\n")
    before = state(tmp_path / "outputs/mine")
    for count in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        ran = mm(verb, *VERBS[verb], how)
        assert ran.status == 2
        assert "the run folder outputs/mine is not empty; choose another run=NAME, or delete it" in ran.err
        assert state(tmp_path / "outputs/mine") == before


def test_two_runs_of_one_second_have_two_folders(run, tmp_path, one_second):
    folders = [run(f"seed={seed}")[0] for seed in range(3)]
    assert [folder.name for folder in folders] == [NAME, f"{NAME}-1", f"{NAME}-2"]
    assert [(tmp_path / "outputs" / folder.name / "seed").read_text() for folder in folders] == ["0", "1", "2"]


def test_the_name_with_a_number_is_that_of_the_config(run, one_second):
    names = []
    for _ in range(2):
        run(job=lambda cfg, folder, provenance: names.append((cfg.run, Path(cfg.paths.run).name)))
    assert names == [(NAME, NAME), (f"{NAME}-1", f"{NAME}-1")]


def test_a_typed_name_gets_no_number(run, tmp_path):
    run("run=a")
    with pytest.raises(ValueError, match="outputs/a is not empty"):
        run("run=a", "seed=1")
    assert (tmp_path / "outputs/a/seed").read_text() == "0"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["run=a", "hydra.run.dir=outputs/a"])
def test_a_run_that_left_nothing_leaves_no_folder(run, tmp_path, error, how):
    def fail(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
        (folder / "checkpoints").mkdir()
        raise error("no")

    with pytest.raises(error):
        run(how, job=fail)
    assert not (tmp_path / "outputs/a").exists()
    (tmp_path / "outputs/a").mkdir()
    with pytest.raises(error):
        run(how, job=fail)
    assert list((tmp_path / "outputs").iterdir()) == [tmp_path / "outputs/a"]  # it was there before, and empty
    assert not list((tmp_path / "outputs/a").iterdir())


def test_a_file_that_appears_during_the_run_keeps_the_folder(run, tmp_path):
    def fail(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
        (folder / "config.yaml").touch()
        (folder / "csv/mine").mkdir(parents=True)
        (folder / "csv/mine/notes.txt").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run("run=a", job=fail)
    assert (tmp_path / "outputs/a/csv/mine/notes.txt").exists()
    assert (tmp_path / "outputs/a/config.yaml").exists()


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "MM_RESTART_COUNT"])
def test_a_restart_goes_on_with_the_run_of_its_own_command_only(run, tmp_path, monkeypatch, variable):
    def begin(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
        provenance.save(folder)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints/last-000000001.ckpt").touch()
        seen.append(cfg.resume)

    seen: list[bool] = []
    monkeypatch.setenv(variable, "1")
    run("run=a", "seed=3", job=begin)  # a new run in a requeued allocation
    run("run=a", "seed=3", job=begin)
    assert seen == [False, True]
    for other in (["seed=4"], ["seed=3", "task.optimizer.lr=0.5"], []):
        with pytest.raises(ValueError, match="outputs/a is not empty"):
            run("run=a", *other, job=begin)
    assert (tmp_path / "outputs/a/seed").read_text() == "3"


def test_a_run_is_resumed_by_one_process_at_a_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mm.runs.folder.PATIENCE", 0)
    run("run=a", job=lambda cfg, folder, provenance: provenance.save(folder))
    first = reopen(tmp_path / "outputs/a")
    with pytest.raises(ValueError, match="a run is at work in outputs/a; wait for its end"):
        run("run=a", "resume=true")
    first.release()
    assert len(run("run=a", "resume=true")) == 1


def test_two_sweeps_of_one_second_have_two_folders(run, tmp_path, one_second):
    first = run("-m", "seed=0,1")
    second = run("-m", "seed=2,3")
    names = [[str(folder.relative_to(tmp_path / "outputs")) for folder in folders] for folders in (first, second)]
    assert names == [[f"{NAME}/0", f"{NAME}/1"], [f"{NAME}-1/0", f"{NAME}-1/1"]]
    assert [(folder / "seed").read_text() for folder in (*first, *second)] == ["0", "1", "2", "3"]


def test_a_sweep_leaves_foreign_files_alone(run, tmp_path):
    (tmp_path / "outputs/mine").mkdir(parents=True)
    (tmp_path / "outputs/mine/notes.txt").write_text("three weeks of work")
    before = state(tmp_path / "outputs/mine")
    with pytest.raises(ValueError, match="outputs/mine is not empty"):
        run("-m", "run=mine", "seed=0,1")
    assert state(tmp_path / "outputs/mine") == before
    run("run=one")
    (tmp_path / "outputs/one/overrides.yaml").touch()
    (tmp_path / "outputs/one/multirun.yaml").touch()
    with pytest.raises(ValueError, match="holds a run that is no sweep"):
        run("-m", "run=one", "seed=0,1")


def test_a_sweep_has_its_folder_for_itself(run, tmp_path):
    code = "import sys, time; from pathlib import Path; from mm.runs.folder import claim\n"
    code += "claim(Path(sys.argv[1]), typed=True); print('mine', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, "outputs/s"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    try:
        with pytest.raises(ValueError, match="a run is at work in outputs/s"):
            run("-m", "run=s", "seed=0,1")
    finally:
        other.kill()
        other.communicate()
    assert not list((tmp_path / "outputs/s").iterdir())
    assert len(run("-m", "run=s", "seed=0,1")) == 2


def test_a_job_of_a_sweep_that_left_nothing_leaves_no_folder(run, tmp_path):
    def fail(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
        if cfg.seed == 1:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run("-m", "run=s", "seed=0,1,2", job=fail)
    assert sorted(p.name for p in (tmp_path / "outputs/s").iterdir()) == ["0", "2", "multirun.yaml"]
    (tmp_path / "outputs/s/1").mkdir()
    with pytest.raises(ValueError):
        run("-m", "run=s", "seed=0,1,2", job=fail)  # typed again: 0 and 2 are there, 1 fails, and was there before
    assert sorted(p.name for p in (tmp_path / "outputs/s").iterdir()) == ["0", "1", "2", "multirun.yaml"]


def test_processes_beside_the_first_claim_nothing(run, tmp_path, monkeypatch):
    first = claim(tmp_path / "outputs/a", typed=True)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
        (folder,) = run("run=a")
        assert folder == tmp_path / "outputs/a"
        monkeypatch.delenv(name)
    first.release()


def test_settings_that_a_finished_run_cannot_take_are_named(run, tmp_path):
    from mm.assembly.resuming import describe_finished

    (tmp_path / "outputs/a/model").mkdir(parents=True)
    length = {"max_epochs": 20, "max_steps": -1, "max_time": None}
    config = {"trainer": length, "seed": 3, "task": {"optimizer": {"lr": 0.1}}}
    for name, content in {"config.yaml": config, "overrides.yaml": ["run=a", "seed=3"], "metrics.json": {}}.items():
        (tmp_path / "outputs/a" / name).write_text(yaml.safe_dump(content))

    said = []

    def ask(*typed: str) -> None:
        run("run=a", "resume=true", *typed, job=lambda *args: said.append(bool(describe_finished(*args))))

    ask()
    ask("seed=3", "task.optimizer.lr=0.1")  # as it was
    ask("trainer.max_epochs=40", "task.optimizer.lr=0.5")
    assert said == [True, True, False]
    for typed in (["task.optimizer.lr=0.5"], ["task/optimizer=sgd"], ["~callbacks.prediction_table"]):
        with pytest.raises(ValueError, match=r"the run in outputs/a is finished, and this would change nothing of it"):
            ask(*typed)


def test_a_new_run_after_one_that_was_killed_before_it_began(run, tmp_path):
    folder = claim(tmp_path / "outputs/a", typed=True)
    os.close(folder.lock or 0)  # as the end of its process does
    assert run("run=a") == [tmp_path / "outputs/a"]
    reopen(tmp_path / "outputs/a").release()
