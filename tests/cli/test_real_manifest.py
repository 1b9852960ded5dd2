"""Three thousand rows of real pictures, sounds and noisy words: what a user brings, trained in three epochs."""

import csv
import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("jackson", "nicolas", "theo", "yweweler", "lucas", "george")


def read_idx(path: Path, offset: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def noisy(word: str, rng: np.random.Generator) -> str:
    """Each letter is wrong with probability 0.3."""
    letters = [c if rng.random() > 0.3 else chr(97 + rng.integers(26)) for c in word]
    return "they said " + "".join(letters)


def write_rows(folder: Path, data: Path) -> Path:
    """2,400 train, 300 val, 300 test; test rows use test images of MNIST and takes 0 to 4 of FSDD."""
    rng = np.random.default_rng(0)
    (folder / "png").mkdir(parents=True)
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "photo", "clip", "words", "label", "split"])
        row = 0
        for part, count, takes in (("train", 2400, (5, 45)), ("val", 300, (45, 50)), ("test", 300, (0, 5))):
            name = "t10k" if part == "test" else "train"
            images = read_idx(data / f"mnist/{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
            labels = read_idx(data / f"mnist/{name}-labels-idx1-ubyte.gz", 8)
            for i in rng.permutation(len(labels))[:count]:
                digit = int(labels[i])
                Image.fromarray(images[i]).save(folder / f"png/{row}.png")
                speaker = SPEAKERS[rng.integers(6)]
                clip = data / f"fsdd/recordings/{digit}_{speaker}_{rng.integers(*takes)}.wav"
                writer.writerow([f"r{row}", f"png/{row}.png", clip, noisy(WORDS[digit], rng), digit, part])
                row += 1
    return path


@pytest.mark.slow
def test_learns_three_thousand_rows_in_three_epochs(mm_process, tmp_path):
    if "MM_DATA" not in os.environ:
        pytest.skip("needs MM_DATA, the folder with the data sets")
    path = write_rows(tmp_path / "data", Path(os.environ["MM_DATA"]).resolve())
    started = time.perf_counter()
    done = mm_process(
        "train",
        "datamodule=manifest",
        f"datamodule.path={path}",
        "datamodule.columns.text=words",
        "datamodule.columns.vision=photo",
        "datamodule.columns.audio=clip",
        "datamodule.columns.target=label",
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "run=real",
        OMP_NUM_THREADS=str(os.cpu_count()),
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "outputs/real/metrics.json").read_text())
    print(f"accuracy {metrics['test/accuracy']:.4f} in {seconds:.0f} s, imports included")
    assert metrics["test/rows"] == 300
    assert metrics["test/accuracy"] >= 0.955
