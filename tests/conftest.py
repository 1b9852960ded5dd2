"""A small data set of three modalities, on disk, and `mm` as a user calls it."""

import csv
import gc
import itertools
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from _composition import memoize_composition
from PIL import Image

ROOT = Path(__file__).parents[1]
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
PITCH = {"red": 300, "green": 900, "blue": 2000}  # Hz

torch.set_num_threads(1)
# In the background of a shell it is ignored, here and in whatever the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


IMPORTED = [0]  # modules at the last freeze


def pytest_runtest_setup() -> None:
    """Leave what has been imported out of garbage collection: Lightning collects after each run, which took 0.4 s."""
    if len(sys.modules) > IMPORTED[0] + 100:
        gc.collect()
        gc.freeze()
        IMPORTED[0] = len(sys.modules)


class Printer(logging.Handler):
    """Handler that prints to what standard output is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record))


@pytest.fixture
def printed_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[pytest.CaptureFixture[str]]:
    """Print what rooms log, as the command line does, and return the fixture that captures it."""
    log, printer = logging.getLogger("mm"), Printer()
    log.addHandler(printer)
    with caplog.at_level(logging.INFO, "mm"):
        yield capsys
    log.removeHandler(printer)


def write_manifest(folder: Path, rows: int = 60, **changed: Callable[[int, dict], None]) -> Path:
    """rows.csv with id, words, photo, sound, colour, size, split: each modality alone tells the colour."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(rows):
        colour = list(COLOURS)[row % 3]
        image = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"media/{row}.png")
        time = np.arange(1200 + 100 * (row % 5)) / 8000
        wave = np.sin(2 * np.pi * PITCH[colour] * time) * 0.5 + rng.normal(0, 0.02, len(time))
        soundfile.write(folder / f"media/{row}.wav", wave.astype(np.float32), 8000)
        lines.append(
            {
                "id": f"r{row}",
                "words": f"it is {colour}" + "!" * (row % 4),
                "photo": f"media/{row}.png",
                "sound": f"media/{row}.wav",
                "colour": colour,
                "size": str(row % 7),
                "split": ("train", "train", "train", "val", "test")[row // 3 % 5],
            }
        )
    for change in changed.values():
        for row, line in enumerate(lines):
            change(row, line)
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


COLUMNS = [
    "datamodule=manifest",
    "datamodule.columns.text=words",
    "datamodule.columns.vision=photo",
    "datamodule.columns.audio=sound",
    "datamodule.columns.target=colour",
]
# A model that trains in a second.
TINY = [
    "model.embed_dim=16",
    "model.encoders.text.embed_dim=16",
    "model.encoders.text.num_layers=1",
    "model.encoders.vision.widths=[8,16]",
    "model.encoders.audio.widths=[8,8,8]",
    "model.encoders.audio.embed_dim=16",
    "datamodule.num_workers=0",
    "trainer.accelerator=cpu",
]


@pytest.fixture(scope="session", autouse=True)
def composition() -> Iterator[None]:
    """Hydra composes the same config once, and the digits are drawn once; in a process of its own nothing is shared."""
    from mm.datamodules import digits

    draw = digits.draw_rows
    drawn: dict[bytes, tuple[list, ...]] = {}

    def draw_rows(*args: object) -> tuple[list, ...]:
        key = pickle.dumps(args)
        if key not in drawn:
            drawn[key] = draw(*args)
        return tuple(map(list, drawn[key]))

    with pytest.MonkeyPatch.context() as patch:
        memoize_composition(patch)
        patch.setattr(digits, "draw_rows", draw_rows)
        yield


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))


@pytest.fixture
def mm_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `mm` as a process of its own, in a fresh folder. -> status, stdout, stderr"""

    def run(*args: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).with_name("mm")), *args]
        settings = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(command, cwd=cwd, env=os.environ | settings | env, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def mm_once() -> Callable[..., None]:
    """Run `mm` in this process, for a fixture of a module: `mm_once(folder, *args)`, which has to succeed."""
    from mm.cli import main

    def run(folder: Path, *args: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("HF_HUB_OFFLINE", "1")
            patch.setenv("WANDB_MODE", "offline")
            patch.setattr(sys, "argv", ["mm", *args])
            try:
                main()
            except SystemExit as stop:
                assert not stop.code  # pytest shows what was printed

    return run


class Ran(NamedTuple):
    """What a command said, and where its run folder is."""

    status: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The last line that the command printed."""
        return Path(self.out.strip().splitlines()[-1])

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.folder / "metrics.json").read_text())


@pytest.fixture
def mm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, request: pytest.FixtureRequest
) -> Callable[..., Ran]:
    """Run `mm` in this process, in a fresh folder: importing everything anew takes seconds."""
    from mm.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")

    number = itertools.count()

    def run(*args: str) -> Ran:
        usual = args and args[0] in ("train", "evaluate", "predict", "calibrate") and "SLURM_NTASKS" not in os.environ
        if usual and not any(a.startswith("run=") or a in ("-m", "--multirun") or "-" in a[:2] for a in args):
            args = (*args, f"run={args[0]}-{next(number)}")  # the default names a second, and two fit into one
        monkeypatch.setattr(sys, "argv", ["mm", *args])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def bert(tokenizer: str, tmp_path: Path) -> str:
    """The folder of a tiny BERT of random weights, and its tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=14, max_position_embeddings=160, **sizes)).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """The folder of a tokenizer of whole words, which knows ten."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "bites", "sees", "a", "old", "big", "bird", "and"]
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=own, **special).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")
