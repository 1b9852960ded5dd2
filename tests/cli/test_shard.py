"""mm shard, and training on what it writes."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from conftest import COLUMNS, TINY, write_manifest
from safetensors.torch import load_file

ONCE = [*TINY, "trainer.max_epochs=2", "datamodule.batch_size=4"]
SHARDS = "datamodule=shards"
FROZEN = ["task.freeze=['^encoders\\.(text|audio)']"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.fixture
def shards(mm, manifest: Path, tmp_path: Path) -> Path:
    """About 20 rows in each."""
    made = mm("shard", *COLUMNS, f"datamodule.path={manifest}", "out=shards", "shard_size_mb=0.15", "run=made")
    assert made.status == 0, made.err
    assert "rows.csv: 60 of 60 rows (text, vision, audio) in 3 shards" in made.out
    assert "mm train datamodule=shards datamodule.path=shards" in made.out
    assert not (tmp_path / "outputs/made").exists()
    assert made.folder == Path("shards")
    return tmp_path / "shards"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def figures(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: x for name, x in found.items() if "duration_s" not in name}


def test_training_on_shards_is_training_on_the_file(mm, manifest, shards, tmp_path):
    """There are fewer shards than the window has, so that even the order is the same."""
    runs = {
        "plain": mm("train", *COLUMNS, *ONCE, f"datamodule.path={manifest}", "run=plain"),
        "shards": mm("train", SHARDS, *ONCE, f"datamodule.path={shards}", "run=shards"),
    }
    for run in runs.values():
        assert run.status == 0, run.err
    one, other = (weights(tmp_path / "outputs" / name) for name in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert figures(tmp_path / "outputs/plain") == figures(tmp_path / "outputs/shards")
    # what it has learnt of columns serves other files
    model = f"checkpoint={tmp_path}/outputs/shards/model"
    for verb, more in (("evaluate", []), ("predict", ["datamodule.on_error=drop"])):
        given = mm(verb, model, "datamodule=manifest", f"datamodule.path={manifest}", *more)
        kept = mm(verb, model, SHARDS, f"datamodule.path={shards}", *more)
        assert given.status == kept.status == 0, given.err + kept.err
        answers = [pyarrow.parquet.read_table(run.folder / "predictions.parquet") for run in (given, kept)]
        assert answers[0].equals(answers[1])
    assert answers[0].num_rows == 60


def test_frozen_features_of_shards(mm, shards, tmp_path):
    args = [SHARDS, *ONCE, *FROZEN, f"paths.cache={tmp_path}/cache"]
    plain = mm("train", *args, f"datamodule.path={shards}", "cache_features=false", "run=plain")
    first = mm("train", *args, f"datamodule.path={shards}", "run=first")
    shutil.move(shards, tmp_path / "moved")
    second = mm("train", *args, "datamodule.path=moved", "run=second")
    for run in (plain, first, second):
        assert run.status == 0, run.err
    for name in ("text", "audio"):
        assert f"features of '{name}', whose encoder is frozen: kept in" in first.out
        assert f"features of '{name}', whose encoder is frozen: read from" in second.out  # the same bytes
    one, *others = (weights(tmp_path / "outputs" / name) for name in ("plain", "first", "second"))
    for other in others:
        for name, x in one.items():
            torch.testing.assert_close(other[name], x, rtol=1e-4, atol=1e-5)


def test_a_window_and_a_budget(mm, manifest, tmp_path):
    made = mm("shard", *COLUMNS, f"datamodule.path={manifest}", "out=shards", "shard_size_mb=0.02")
    assert made.status == 0, made.err
    args = [
        SHARDS,
        *TINY,
        "datamodule.path=shards",
        "datamodule.shuffle_window=2",
        "datamodule.max_batch_length={text: 60, audio: 2}",
    ]
    run = mm("train", *args, "datamodule.num_buckets=2", "trainer.max_epochs=3", "run=a")
    assert run.status == 0, run.err
    again = mm("train", *args, "datamodule.num_buckets=2", "trainer.max_epochs=3", "run=b")
    one, other = weights(tmp_path / "outputs/a"), weights(tmp_path / "outputs/b")
    assert again.status == 0
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["shards", "mixture"])
def test_stopped_and_resumed_in_another_number_of_processes(mm, mm_process, manifest, tmp_path, data):
    """No row of the epoch is lost or seen twice, and as many as a file's part of it are drawn."""
    if data == "shards":
        made = mm("shard", *COLUMNS, f"datamodule.path={manifest}", "out=shards", "shard_size_mb=0.02")
        assert made.status == 0, made.err
        args = [SHARDS, "datamodule.path=shards", "datamodule.shuffle_window=2"]
        wanted = Counter(row for row in range(60) if row // 3 % 5 < 3)
    else:
        write_manifest(tmp_path / "other", rows=30)
        args = [*COLUMNS, f"datamodule.path=[{manifest},other/rows.csv]", "datamodule.mixing=uniform"]
        wanted = None
    log = tmp_path / "seen"
    watch = ["+callbacks.seen._target_=planted.Record", f"+callbacks.seen.folder={log}"]
    stop = [
        "callbacks.periodic_checkpoint.steps=1",
        "+callbacks.kill._target_=planted.Kill",
        "+callbacks.kill.step=3",
        "+callbacks.kill.how=SIGTERM",
    ]
    args += [*TINY, *watch, "datamodule.batch_size=3", "trainer.max_epochs=1", "run=cut"]
    here = str(Path(__file__).parents[1])
    cut = mm_process("train", *args, *TWO, *stop, PYTHONPATH=here)
    assert "stopped by SIGTERM after step 3" in cut.stderr, cut.stderr
    done = mm_process(
        "train",
        "run=cut",
        "resume=true",
        "trainer=default",
        "trainer.accelerator=cpu",
        "+callbacks.kill.step=-1",
        PYTHONPATH=here,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines()]
    seen = Counter(row for _, rows in lines for row in rows if row >= 0)
    if wanted is not None:
        assert seen == wanted
    else:
        assert sum(seen.values()) == 54
        assert sum(count for row, count in seen.items() if row >= 60) == 27
        assert {seen[row] for row in range(60, 90) if seen[row]} == {1, 2}  # 18 rows, 27 times


def test_a_mixture_by_its_command(mm, manifest, tmp_path):
    write_manifest(tmp_path / "other", rows=30)
    two = (
        f"datamodule.path=[{manifest},{{path: other/rows.csv, columns: {{text: words, target: colour}}, weight: 2.0}}]"
    )
    run = mm(
        "train",
        *COLUMNS,
        *ONCE,
        two,
        "datamodule.mixing=temperature",
        "datamodule.homogeneous_batches=true",
        "run=mixed",
    )
    assert run.status == 0, run.err
    assert f"{manifest} + other/rows.csv: train 54, val 18, test 18 rows" in run.out
    named = json.loads((tmp_path / "outputs/mixed/metrics.json").read_text())
    # 36 and 18 rows to train on: 6.00 to 2 x 4.24 of 54 are 22 and 32, in batches of 4
    assert named["train/steps"] == 2 * (6 + 8)
    wrong = mm("train", *COLUMNS, *ONCE, two, "datamodule.mixing=sizes")
    assert wrong.status == 2
    assert "datamodule.mixing: got 'sizes', wanted one of proportional, uniform, temperature" in wrong.err
    resumed = mm("train", "run=mixed", "resume=true", "datamodule.mixing=uniform", "trainer.max_epochs=3")
    assert resumed.status == 2
    assert "datamodule.mixing was temperature, now it is uniform; a run keeps its model and its data" in resumed.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["shard_size_mb=0"], "shard_size_mb: got 0, wanted MB above 0"),
        (["datamodule=digits"], "mm shard: wanted a table file or a folder: datamodule=manifest"),
        (["out=full"], "is not empty; choose another folder, or delete it"),
    ],
)
def test_mistakes(mm, manifest, tmp_path, args, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    path = [] if "datamodule=digits" in args else [*COLUMNS, f"datamodule.path={manifest}"]
    run = mm("shard", *path, "out=new", *args)
    assert run.status == 2
    assert message in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "new").exists()


def test_rows_that_can_not_be_read_are_listed(mm, tmp_path):
    path = write_manifest(tmp_path / "data")
    (tmp_path / "data/media/1.wav").write_bytes(b"no sound")
    args = ["shard", *COLUMNS, f"datamodule.path={path}", "out=shards"]
    told = mm(*args)
    assert told.status == 2
    assert "rows.csv: row 1 (id 'r1'), column 'sound': can't read the sound" in told.err
    done = mm(*args, "datamodule.on_error=drop", "run=made")
    assert done.status == 0, done.err
    assert "59 of 60 rows" in done.out
    assert "rows that could not be read as a whole: 1, told in outputs/made/errors.csv" in done.out
    assert "r1,train,sound," in (tmp_path / "outputs/made/errors.csv").read_text()


@pytest.mark.parametrize("step", [5, 17])
def test_a_mixture_under_a_budget_is_resumed_exactly(mm, manifest, tmp_path, step):
    """Its epochs are of different lengths, as their rows are."""
    write_manifest(tmp_path / "other", rows=30, long=lambda row, line: line.update(words="x" * (row + 1)))
    args = [*COLUMNS, *TINY, f"datamodule.path=[{manifest},other/rows.csv]", "datamodule.mixing=uniform"]
    args += ["datamodule.max_batch_length={text: 60}", "datamodule.num_buckets=2", "trainer.max_epochs=3"]
    args += ["+callbacks.record._target_=planted.Record", f"+callbacks.record.folder={tmp_path}/rows"]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    (tmp_path / "rows/0.jsonl").rename(tmp_path / "whole.jsonl")
    kill = ["+callbacks.kill._target_=planted.Kill", "+callbacks.kill.how=SIGTERM"]
    cut = mm("train", *args, *kill, f"+callbacks.kill.step={step}", "run=cut")
    assert f"stopped by SIGTERM after step {step}" in cut.err
    done = mm("train", "run=cut", "resume=true", "+callbacks.kill.step=-1")
    assert done.status == 0, done.err
    one, other = weights(tmp_path / "outputs/whole"), weights(tmp_path / "outputs/cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = (tmp_path / "whole.jsonl").read_text()
    assert (tmp_path / "rows/0.jsonl").read_text() == lines
    read = [json.loads(line) for line in lines.splitlines()]
    for epoch in range(3):
        assert sum(row >= 0 for number, rows in read if number == epoch for row in rows) == 54
    counts = [sum(number == epoch for number, _ in read) for epoch in range(3)]
    assert len(set(counts)) > 1, counts
