"""One message where the operating system refuses to write, whichever library has met the refusal."""

import csv
import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mm.callbacks.periodic_checkpoint import WholeFileIO
from mm.cli._mistakes import explain
from mm.files import free_bytes, refusal, whole, write_json
from mm.runs.prediction_files import write_predictions
from mm.runs.refusals import explain_refusal, place_of, refusals_explained
from mm.tasks.answers import Answers

WEIGHTS = {"weight": torch.zeros(1_000_000)}


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """A file system without a free byte."""
    folder = tmp_path_factory.mktemp("disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("can't mount a small file system here")
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    yield folder
    subprocess.run(["umount", folder], check=True)


def by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(WEIGHTS, file)


def by_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([["x" * 1000]] * 1000)


def by_whole(path: Path) -> None:
    with whole(path) as part:
        part.mkdir()
        save_file(WEIGHTS, part / "model.safetensors")


WRITERS = {
    "torch.save to a file": by_torch,
    "torch.save to a path": lambda path: torch.save(WEIGHTS, path),
    "a checkpoint": lambda path: WholeFileIO().save_checkpoint(WEIGHTS, path),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "a model directory": by_whole,
    "numpy": lambda path: np.zeros(1_000_000).tofile(path),
    "parquet": lambda path: pyarrow.parquet.write_table(pyarrow.table({"x": np.random.rand(1_000_000)}), str(path)),
    "json": lambda path: write_json(path, {"x" * 100_000: 1}),
    "yaml": lambda path: OmegaConf.save(OmegaConf.create({"x": "y" * 100_000}), path),
    "csv": by_csv,
    "picture": lambda path: Figure().savefig(path, format="png"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_recognized_in_every_librarys_error(writer, full_disk):
    places = {"paths.outputs": str(full_disk)}
    said = (
        r"^No space left on device: \S+ \(0\.0 MB are free\); make room, or choose another disk with paths.outputs=DIR"
    )
    with pytest.raises(ValueError, match=said), refusals_explained(places, full_disk / "r", None):
        WRITERS[writer](full_disk / "x")
    assert not list(full_disk.glob("*.part"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENAMETOOLONG])
def test_every_refusal_names_the_file_and_the_key(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = OSError(number, os.strerror(number), "outputs/r/a.json.host-12-0123abcd.part")
    said = explain_refusal(error, {"paths.outputs": "outputs", "paths.cache": "outputs/.cache"}) or ""
    assert said.startswith(f"{os.strerror(number)}: outputs/r/a.json")
    assert ".part" not in said
    assert "paths.outputs=DIR" in said
    assert explain(error, "train") is not None  # as well without a job


def test_after_a_checkpoint_the_command_to_go_on_is_said(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last-000000001.ckpt").touch()
    again = "mm train run=r resume=true"
    said = pytest.raises(ValueError, match=f"; make room and go on with: {again}$")
    with said, refusals_explained({}, tmp_path, again):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_place_is_that_of_the_innermost_key(tmp_path):
    places = {"paths.outputs": str(tmp_path), "paths.cache": str(tmp_path / ".cache")}
    assert place_of(tmp_path / ".cache/x/y", places) == "paths.cache"
    assert place_of(tmp_path / "r/model", places) == "paths.outputs"
    assert place_of(Path("/etc/x"), places) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("x"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        PermissionError(errno.EPERM, "Operation not permitted"),  # of os.kill, say: no file is named
    ],
)
def test_other_errors_are_left_alone(error):
    assert explain_refusal(error) is None
    with pytest.raises(type(error)), refusals_explained({}, Path("r"), None):
        raise error


def test_a_message_of_ours_is_not_replaced_by_its_cause():
    with pytest.raises(ValueError, match="row 3 is no picture"), refusals_explained({}, Path("r"), None):
        try:
            raise OSError(errno.EIO, "Input/output error", "a.png")
        except OSError:
            raise ValueError("row 3 is no picture")  # noqa: B904
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("another") from None
    except RuntimeError as error:
        assert refusal(error) is None


def test_shared_memory_and_temporary_folders():
    shared = RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")
    assert "datamodule.num_workers=0" in (explain_refusal(shared) or "")
    lacking = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']")
    assert "set TMPDIR=DIR" in (explain_refusal(lacking) or "")


def test_what_is_free_of_a_path_that_is_not_there(tmp_path):
    assert free_bytes(tmp_path / "a/b") > 0


class Data:
    faults: dict = {}  # noqa: RUF012
    table = type("Table", (), {"ids": ["a"], "targets": ()})


@pytest.mark.parametrize("what", ["metrics", "predictions", "checkpoint"])
def test_what_was_there_stays_whole_and_nothing_half_is_left(what, tmp_path, monkeypatch):
    """A disk that is full when the temporary file is to get its name, for each of the files that a run writes."""
    path = tmp_path / what
    path.write_bytes(b"before")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    monkeypatch.setattr("os.replace", full)
    write = {
        "metrics": lambda: write_json(path, {"a": 1.0}),
        "predictions": lambda: write_predictions(path, Data, [0], Answers(tmp_path), truth=False),
        "checkpoint": lambda: WholeFileIO().save_checkpoint(WEIGHTS, path),
    }[what]
    with pytest.raises(OSError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"before"
