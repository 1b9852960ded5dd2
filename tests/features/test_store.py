"""Training on stored Features is training on the frozen encoders themselves."""

import csv
import json
import os
import shutil
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import torch
from conftest import COLUMNS, TINY, write_manifest
from safetensors.torch import load_file

from mm.data.fingerprint import identities
from mm.encoders.text.transformer import TextTransformer
from mm.features import store
from mm.features.files import FeatureStore, Writer
from mm.types import Features

ARGS = [
    *COLUMNS,
    *TINY,
    "model/fusion=transformer",
    "model.fusion.num_layers=1",
    "model.fusion.num_heads=2",
]
LONG = ["trainer.max_epochs=2"]
SHORT = ["trainer.max_epochs=1", "task.modality_subsets.test=none"]  # where no metric is compared
FROZEN = ["task.freeze=['^encoders\\.(text|audio)']", "task.modality_dropout=0.3", "datamodule.batch_size=8"]
AS_MISSING = ["datamodule.on_error=missing", "datamodule.transforms.text.max_length=10"]


@pytest.fixture
def broken(tmp_path):
    """One sound is unreadable, one cell empty."""
    path = write_manifest(tmp_path / "data", sound=lambda row, line: line.update(words="") if row == 4 else None)
    (path.parent / "media/1.wav").write_bytes(b"no sound")
    return path


@pytest.mark.parametrize("how", [[], ["datamodule.transforms.text.overflow=window"]])
def test_equals_computing_each_time(mm, broken, tmp_path, how):
    args = [*ARGS, *LONG, *FROZEN, *AS_MISSING, *how, f"datamodule.path={broken}", f"paths.cache={tmp_path / 'cache'}"]
    runs = {}
    for name, more in {"plain": ["cache_features=false"], "first": [], "second": []}.items():
        runs[name] = mm("train", *args, *more, f"run={name}")
        assert runs[name].status == 0, runs[name].err
    assert "features of" not in runs["plain"].out
    for name in ("text", "audio"):
        assert f"features of '{name}', whose encoder is frozen: kept in" in runs["first"].out
        assert f"features of '{name}', whose encoder is frozen: read from" in runs["second"].out
    assert "features of 'vision'" not in runs["first"].out
    weights = {name: load_file(run.folder / "model/model.safetensors") for name, run in runs.items()}
    for name in ("first", "second"):
        for part, x in weights["plain"].items():
            torch.testing.assert_close(weights[name][part], x, rtol=1e-4, atol=1e-5)
        for metric, x in runs["plain"].metrics.items():
            if "duration_s" not in metric:
                assert runs[name].metrics[metric] == pytest.approx(x, abs=1e-4), metric
        assert (runs[name].folder / "errors.csv").read_text() == (runs["plain"].folder / "errors.csv").read_text()


def test_another_key_for_other_weights_data_and_reading(mm, manifest, tmp_path):
    args = [
        *ARGS,
        *FROZEN,
        f"paths.cache={tmp_path / 'cache'}",
        "trainer.max_epochs=1",
    ]
    args[args.index(FROZEN[0])] = "task.freeze=['^encoders\\.text']"
    other = write_manifest(tmp_path / "data", words=lambda row, line: line.update(words=line["words"] + "?"))
    keys = []
    for i, more in enumerate(
        ([], ["seed=1"], ["datamodule.transforms.text.max_length=5"], [f"datamodule.path={other}"])
    ):
        run = mm("train", *args, f"datamodule.path={manifest}", *more, f"run=r{i}")
        assert run.status == 0, run.err
        keys.append(next(line for line in run.out.splitlines() if line.startswith("features of 'text'")))
    assert len(set(keys)) == 4
    assert all("kept in" in key for key in keys)


def test_augmented_inputs_and_learning_encoders_are_left_alone(mm, manifest, tmp_path):
    args = [*ARGS, *SHORT, f"datamodule.path={manifest}", "trainer.max_epochs=1", f"paths.cache={tmp_path / 'cache'}"]
    run = mm("train", *args, "datamodule/transforms/vision=affine", "task.freeze=['^encoders\\.vision']", "run=a")
    assert run.status == 0, run.err
    assert "features of" not in run.out


def test_what_is_written_is_read(tmp_path):
    generator = torch.Generator().manual_seed(0)
    features = Features(
        torch.randn(3, 5, 4, generator=generator).bfloat16(),
        torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool(),
        torch.randn(3, 4, generator=generator),
        torch.rand(3, 5, 2, generator=generator),
    )
    abouts = []
    for rank, (rows, part) in enumerate([([7, 8, 2], features), ([5, 5, -1], features)]):
        writer = Writer(tmp_path, rank)
        writer.add(torch.tensor(rows), part)
        abouts.append(writer.close() | {"faults": [], "cut": []})
    abouts[1]["faults"] = [[9, "can't read it"]]
    (tmp_path / "done.json").write_text(json.dumps(abouts))
    stored = FeatureStore(tmp_path)
    (seven,) = stored(7).windows
    assert torch.equal(seven.tokens, features.tokens[0, :4])
    assert seven.tokens.dtype == torch.bfloat16
    assert seven.mask.tolist() == [True, True, False, True]
    assert torch.equal(seven.position, features.position[0, :4])
    assert stored(8).windows == []
    assert torch.equal(stored(2).windows[0].pooled, features.pooled[2])
    assert len(stored(5).windows) == 1
    with pytest.raises(ValueError, match="can't read it"):
        stored(9)
    assert stored.lengths([7, 8, 2, 0]) == [4, 0, 5, 0]


def test_a_row_takes_little_memory(tmp_path):
    rows, one = 4000, Features(torch.ones(4, 1, 2), torch.ones(4, 1).bool(), torch.ones(4, 2), torch.ones(4, 1, 2))
    writer = Writer(tmp_path, 0)
    for row in range(0, rows, 4):
        writer.add(torch.arange(row, row + 4), one)
    (tmp_path / "done.json").write_text(json.dumps([writer.close() | {"faults": [], "cut": []}]))
    stored = FeatureStore(tmp_path)
    stored(0)  # imports, and the like
    del stored
    tracemalloc.start()
    stored = FeatureStore(tmp_path)
    assert len(stored(rows - 1).windows) == 1
    assert stored(rows).windows == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * rows


ONE = [*ARGS, *SHORT, "trainer.max_epochs=1", "model/fusion=concat"]
ONE = [arg for arg in ONE if not arg.startswith("model.fusion") and arg != "model/fusion=transformer"]
TEXT = ["task.freeze=['^encoders\\.text']"]


def told(run) -> str:
    assert run.status == 0, run.err
    return next(line for line in run.out.splitlines() if "whose encoder is frozen" in line)


def test_a_file_beside_the_table_that_has_changed(mm, tmp_path):
    path = write_manifest(tmp_path / "data")
    lines = list(csv.DictReader(path.read_text().splitlines()))
    for line in lines:  # no path has a folder in it
        for column in ("photo", "sound"):
            shutil.copy(path.parent / line[column], tmp_path)
            line[column] = Path(line[column]).name
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    args = [*ONE, "datamodule.path=rows.csv", "task.freeze=['^encoders\\.vision']", f"paths.cache={tmp_path / 'cache'}"]
    first = told(mm("train", *args, "run=a"))
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    second = told(mm("train", *args, "run=b"))
    assert "kept in" in first
    assert "kept in" in second
    assert first != second
    assert told(mm("train", *args, "run=c")) == second.replace("kept in", "read from")


def test_what_tells_raw_inputs_from_others(tmp_path):
    def key(raw, files=False):
        return b"".join(identities(raw, files))

    file = tmp_path / "0.wav"
    file.write_bytes(b"one")
    before, times = key([str(file)], files=True), os.stat(file)
    assert key([str(file)], files=True) == before
    (tmp_path / "other").write_bytes(b"two")
    os.replace(tmp_path / "other", file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `rsync --times` does
    assert key([str(file)], files=True) != before
    large = np.zeros(5000), np.zeros(5000)
    large[1][2500] = 1  # which repr leaves out
    assert key([[large[0]]]) != key([[large[1]]])
    assert key([np.zeros((2, 3)), np.zeros(2)]) != key([np.zeros((2, 2)), np.zeros(4)])
    assert key(["a", "bc"]) != key(["ab", "c"])


def test_an_encoder_whose_code_has_changed_is_computed_anew(mm, manifest, tmp_path, monkeypatch):
    args = [*ONE, *TEXT, f"datamodule.path={manifest}", f"paths.cache={tmp_path / 'cache'}"]
    first = told(mm("train", *args, "run=a"))
    forward = TextTransformer.forward

    def other(self, x, mask):
        features = forward(self, x, mask)
        return features._replace(pooled=1.1 * features.pooled)

    with monkeypatch.context() as patch:
        patch.setattr(TextTransformer, "forward", other)
        run = mm("train", *args, "run=b")
        assert "are not what its encoder gives now" in run.out
        assert told(run) == f"{first}-2"
        assert told(mm("train", *args, "run=c")) == f"{first}-2".replace("kept in", "read from")
    assert told(mm("train", *args, "run=d")) == first.replace("kept in", "read from")


def test_of_two_runs_one_computes_and_the_other_waits_and_reads(mm, manifest, tmp_path, monkeypatch):
    args = [*ONE, *TEXT, f"datamodule.path={manifest}", f"paths.cache={tmp_path / 'cache'}"]
    path = Path(told(mm("train", *args, "run=a")).split("kept in ")[1])
    path.rename(tmp_path / "computed")
    waits, held = threading.Event(), threading.Event()

    class Told(filelock.FileLock):
        def _acquire(self):
            waits.set()
            super()._acquire()

    def compute() -> None:
        with lock(f"{path}.lock"):
            held.set()
            waits.wait(20)
            (tmp_path / "computed").rename(path)

    lock = filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", Told)
    monkeypatch.setattr(store, "WAIT", 0.05)
    other = threading.Thread(target=compute)
    other.start()
    held.wait()
    run = mm("train", *args, "run=b")
    other.join()
    assert told(run).endswith(f"read from {path}")


def test_a_computation_that_fails_leaves_nothing(mm, manifest, tmp_path, monkeypatch):
    args = [*ONE, *TEXT, f"datamodule.path={manifest}", f"paths.cache={tmp_path / 'cache'}", "datamodule.batch_size=4"]
    add, calls = Writer.add, []

    def broken(self, row, features):
        calls.append(row)
        if len(calls) == 3:
            raise RuntimeError("planted")
        return add(self, row, features)

    monkeypatch.setattr(Writer, "add", broken)
    with pytest.raises(RuntimeError, match="planted"):
        mm("train", *args, "run=a")
    assert [f.suffix for f in (tmp_path / "cache/features").iterdir()] == [".lock"]


def test_the_disk_is_measured_by_rows_of_all_lengths(mm, tmp_path, monkeypatch):
    with (tmp_path / "rows.csv").open("w") as file:
        file.write("text,target,split\n")
        for i in range(400):  # one in seven is long
            file.write(f"{'x' * (200 if i % 7 == 3 else 2 + i % 3)},{i % 2},{('train', 'val', 'test')[i % 3]}\n")
    tiny = [arg for arg in TINY if "audio" not in arg and "vision" not in arg]
    args = ["datamodule=manifest", "datamodule.path=rows.csv", "datamodule.columns.text=text", *TEXT, *tiny]
    args += ["datamodule.columns.target=target", "trainer.max_epochs=1", f"paths.cache={tmp_path / 'cache'}"]
    path = Path(told(mm("train", *args, "run=whole")).split("kept in ")[1])
    size = sum(file.stat().st_size for file in path.glob("part-*/*") if file.suffix != ".npy")
    shutil.rmtree(path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0.8 * size))
    full = mm("train", *args, "run=full")
    assert full.status == 2
    assert "set paths.cache to a larger disk" in full.err
    assert [f.suffix for f in path.parent.iterdir()] == [".lock"]
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1.6 * size))
    assert "kept in" in told(mm("train", *args, "run=room"))
