"""Where a run is watched; an offline W&B run is read back from its file."""

import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from conftest import COLUMNS, TINY
from wandb.errors import UsageError
from wandb.proto.wandb_internal_pb2 import Record

import mm as package

SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=16", "trainer.log_every_n_steps=2"]  # 36 training rows: 3 steps


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # where artifacts wait for their upload
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_NOTES"):
        monkeypatch.delenv(name, raising=False)


def records(file: Path) -> Iterator[Record]:
    """What a run wrote: LevelDB's log format after 7 bytes of header; wandb 0.31 has no reader in Python any more."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block in which no header fits
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def finished(file: Path) -> list[Record]:
    """All records, once the process that writes them for wandb is done: on a busy machine that is after `finish`."""
    for _ in range(60):
        found = list(records(file))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.5)
    raise AssertionError(f"{file} has no end: {[r.WhichOneof('record_type') for r in found]}")


def name(item) -> str:
    return item.key or ".".join(item.nested_key)


def read(folder: Path) -> list[SimpleNamespace]:
    """The offline runs of a run folder, oldest first."""
    runs = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run = SimpleNamespace(file=file, config={}, history={}, summary={}, artifacts={}, files=set())
        run.summaries, run.tables = {}, {}
        for record in finished(file):
            match record.WhichOneof("record_type"):
                case "run":
                    run.about = record.run
                case "config":
                    run.config |= {name(item): json.loads(item.value_json) for item in record.config.update}
                case "history":
                    step = {name(item): json.loads(item.value_json) for item in record.history.item}
                    for key, value in step.items():
                        run.history.setdefault(key, []).append((step.get("trainer/global_step"), value))
                case "metric" if record.metric.name:
                    kept = record.metric.summary
                    run.summaries[record.metric.name] = [x for x in ("min", "max", "last") if getattr(kept, x)]
                case "summary":
                    run.summary |= {name(item): json.loads(item.value_json) for item in record.summary.update}
                case "artifact" if record.artifact.type == "run_table":
                    paths = [entry.path for entry in record.artifact.manifest.contents]
                    (path,) = [path for path in paths if path.endswith(".table.json")]
                    run.tables[path.removesuffix(".table.json")] = record.artifact
                case "artifact":
                    run.artifacts[record.artifact.type] = record.artifact
                case "files":
                    run.files |= {f.path for f in record.files.files}
        runs.append(run)
    return runs


def test_an_offline_run_holds_everything(mm, manifest, monkeypatch):
    ran = mm(
        "train",
        *SMALL,
        f"datamodule.path={manifest}",
        "run=watched",
        "trainer.max_epochs=2",
        "task.modality_subsets.val=auto",
        "callbacks.prediction_table.rows=5",
        "logger=[csv,tensorboard,wandb]",
        "logger.wandb.group=colours",
        "logger.wandb.job_type=trial",
    )
    assert ran.status == 0, ran.err
    lines = next(ran.folder.glob("csv/*/metrics.csv")).read_text().splitlines()
    assert "train/loss" in next(csv.reader(lines))
    assert list(ran.folder.glob("tensorboard/events.*"))
    (run,) = read(ran.folder)

    # what it is
    assert run.about.display_name == "watched"
    assert (run.about.run_group, run.about.job_type, list(run.about.tags)) == ("colours", "trial", ["manifest"])
    assert run.about.notes.startswith("mm train datamodule=manifest ")
    assert run.config["task"]["optimizer"]["lr"] > 0
    assert run.config["model"]["encoders"]["audio"]["frontend"]["sample_rate"] == 8000  # found in the data
    assert "???" not in str(run.config)

    # what was measured
    for key in ("train/loss", "train/samples_per_second", "train/tokens_per_second"):
        assert [step for step, _ in run.history[key]] == [1, 3, 5], key  # zero-based, every second, across epochs
        assert all(value > 0 for _, value in run.history[key])
    for key in ("val/loss", "val/accuracy", "val[text]/accuracy", "val[vision+audio]/accuracy"):
        assert len(run.history[key]) == 2, key
    assert run.summary["test/accuracy"] == pytest.approx(ran.metrics["test/accuracy"])
    assert run.summary["best/val/loss"] == pytest.approx(ran.metrics["val/loss"])  # not the last
    assert run.summaries["val/loss"] == ["min", "last"]
    assert run.summaries["val/accuracy"] == ["max", "last"]
    assert [step for step, _ in run.history["lr"]] == [1, 3, 5]
    points = {key for key in run.history if key.startswith("test")}
    assert {key for key in points if not key.startswith(("test/report.", "test/results."))} == set()
    assert run.summary["train/epochs"] == 2
    assert run.summary["data/faulty_rows"] == 0

    # the test: one table, not a panel of one point for every number
    (file,) = [Path(entry.local_path) for entry in run.tables["test/results"].manifest.contents]
    table = json.loads(file.read_text())
    assert table["columns"] == ["split", "subset", "metric", "value"]
    assert ["test", "all", "accuracy", pytest.approx(ran.metrics["test/accuracy"])] in table["data"]
    assert len(table["data"]) == sum(key.startswith("test") for key in ran.metrics)

    # what was seen and heard
    assert any(f.startswith("media/images/test/report_") for f in run.files)
    assert sum(f.startswith("media/images/val/report_") for f in run.files) == 2  # the confusion matrix of a validation
    media = {entry.path: Path(entry.local_path) for entry in run.tables["val/samples"].manifest.contents}
    table = json.loads(next(file for path, file in media.items() if path.endswith(".table.json")).read_text())
    assert table["columns"] == [
        *("id", "text", "vision", "audio"),
        *("target/prediction", "target/probability", "target/truth"),
    ]
    assert [line[0] for line in table["data"]] == ["r9", "r10", "r11", "r24", "r25"]
    for _, words, image, audio, prediction, probability, truth in table["data"]:
        assert truth in words
        assert prediction in ("red", "green", "blue")
        assert 1 / 3 < probability <= 1
        assert (image["_type"], image["width"], image["height"]) == ("image-file", 12, 12)
        assert media[image["path"]].read_bytes().startswith(b"\x89PNG")
        assert audio["_type"] == "audio-file"
        assert media[audio["path"]].read_bytes().startswith(b"RIFF")

    # what was made: the artifact is the model directory, and loads by its name
    model = run.artifacts["model"]
    assert (model.name, set(model.aliases)) == ("watched", {"latest", "best", "watched"})
    stored = {entry.path: Path(entry.local_path) for entry in model.manifest.contents}
    assert set(stored) == {"config.yaml", "labels.json", "model.safetensors", "README.md", "rows.safetensors"}
    download = Path("downloaded").absolute()
    download.mkdir()
    for path, file in stored.items():
        (download / path).write_bytes(file.read_bytes())
    asked = []
    listed = SimpleNamespace(entries={name: SimpleNamespace(ref=None) for name in stored})
    found = SimpleNamespace(manifest=listed, download=lambda: str(download))
    api = SimpleNamespace(artifact=lambda n: asked.append(n) or found)
    monkeypatch.setattr(wandb, "Api", lambda: api)
    answer = package.load("wandb:me/mm/watched:latest").predict({"text": "it is red"})
    assert asked == ["me/mm/watched:latest"]
    assert answer == package.load(ran.folder / "model").predict({"text": "it is red"})

    # it goes on under its own id
    more = mm("train", "run=watched", "resume=true", "trainer.max_epochs=3")
    assert more.status == 0, more.err
    first, second = read(ran.folder)
    assert first.about.run_id == second.about.run_id
    assert [step for step, _ in second.history["train/loss"]] == [7]


def test_a_sweep_is_a_group_of_runs(mm, manifest):
    wandb.init(mode="offline", dir=".")  # as a job that failed leaves it
    ran = mm(
        *("train", "-m", *SMALL, f"datamodule.path={manifest}", "run=sweep", "seed=0,1", "trainer.max_epochs=1"),
        *("logger=wandb", "~callbacks.prediction_table"),
    )
    assert ran.status == 0, ran.err
    assert wandb.run is None
    runs = [run for job in "01" for run in read(Path("outputs/sweep") / job)]
    assert [run.about.display_name for run in runs] == ["sweep/0", "sweep/1"]
    assert [run.about.run_group for run in runs] == ["sweep", "sweep"]
    assert [run.artifacts["model"].name for run in runs] == ["sweep_0", "sweep_1"]
    assert len({run.about.run_id for run in runs}) == 2
    assert set(runs[0].tables) == {"test/results"}


def test_no_logger_at_all(mm, manifest):
    ran = mm("train", *SMALL, f"datamodule.path={manifest}", "run=quiet", "trainer.max_epochs=1", "logger=[]")
    assert ran.status == 0, ran.err
    assert not list(ran.folder.glob("csv"))


def test_what_is_missing_is_told_before_training(mm, monkeypatch):
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    ran = mm("train", "trainer.accelerator=cpu", "logger=tensorboard", "run=none")
    assert ran.status == 2
    assert "pip install 'mm[tensorboard]'" in ran.err
    assert "Traceback" not in ran.err

    def refuse(**_):
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    ran = mm("train", "trainer.accelerator=cpu", "logger=wandb", "run=none")
    assert ran.status == 2
    assert "`wandb login`" in ran.err
    assert "WANDB_MODE=offline" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.slow
def test_several_processes_of_an_agent_are_one_run(mm_process, manifest, tmp_path):
    settings = [f"--{arg}" for arg in (*SMALL, f"datamodule.path={manifest}", "run=two", "trainer.max_epochs=1")]
    ran = mm_process(
        *("train", "trainer=ddp", "--trainer.devices=2", "logger=wandb", *settings),
        WANDB_SWEEP_ID="sweep123",
        WANDB_RUN_ID="agent123",
    )
    assert ran.returncode == 0, ran.stderr
    (run,) = read(tmp_path / "outputs/two")
    assert (run.about.run_id, run.about.sweep_id) == ("agent123", "sweep123")
    assert (tmp_path / "outputs/two/wandb_id").read_text() == "agent123"
    media = [entry.path for entry in run.tables["val/samples"].manifest.contents]
    assert sum(path.endswith(".wav") for path in media) == 12  # every validation row, not one process's share
