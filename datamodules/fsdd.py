"""The Free Spoken Digit Dataset: clips of one spoken digit each, by six speakers, one of whom can be held out."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.table import Table
from mm.data.targets import add_target
from mm.messages import near
from mm.transforms.audio.waveform import read_file
from mm.types import DataSpec, InputData

RATE = 8000  # Hz
TAKES = {"test": range(5), "val": range(5, 10), "train": range(10, 50)}  # the first five are the official test set
EVERY = range(50)
TARGETS = ("digit", "speaker")
Clip = tuple[int, str, int]  # digit, speaker, take


class FSDDDataModule(DataModule):
    """The Free Spoken Digit Dataset, with one row per clip.

    Args:
        path: Folder with the recordings in fsdd/recordings/.
        held_out: Speaker whose clips, with all takes, are the test split and are in no other split. None: the splits
            have all speakers, but different takes.
        target: Predicted value, "digit" or "speaker".
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If the recordings are missing, or if an argument has an unsupported value.
    """

    def __init__(self, path: str, held_out: str | None, target: str, **shared: Any):
        super().__init__(**shared)
        if target not in TARGETS:
            raise ValueError(
                f"datamodule.target: got '{target}', wanted one of {', '.join(TARGETS)}{near(target, TARGETS)}"
            )
        if target == "speaker" and held_out is not None:
            raise ValueError("datamodule.held_out: a speaker whom training has not heard can't be told; set it to null")
        self.path = Path(path)
        self.held_out = held_out
        self.target = target

    def read(self) -> Table:
        clips = read_clips(self.path)
        check_speaker(self.held_out, speakers(clips))
        keys = sorted(clips)
        table = Table(
            inputs={"audio": [(clips[key], RATE) for key in keys]},
            targets={},
            ids=["_".join(map(str, key)) for key in keys],
            split=np.array([where(key, self.held_out) for key in keys], dtype=object),
            spec=DataSpec(inputs={"audio": InputData(modality="audio", sample_rate=RATE)}, targets={}),
            source="fsdd",
        )
        labels = [key[TARGETS.index(self.target)] for key in keys]
        add_target(table, "target", [self.target] * len(keys), labels, self)
        return table


def where(key: Clip, held_out: str | None) -> str:
    """Return the name of the split of a clip; "" if it is in no split.

    The clips of a held-out speaker are the test split. The test takes of the other speakers are then in no split.

    Args:
        key: Digit, speaker and take of the clip.
        held_out: The held-out speaker, or None.
    """
    name = next(name for name, takes in TAKES.items() if key[2] in takes)
    if held_out is None:
        return name
    return "test" if key[1] == held_out else "" if name == "test" else name


def read_clips(path: Path) -> dict[Clip, np.ndarray]:
    """Read the waveforms of all clips.

    Args:
        path: Folder with the recordings in fsdd/recordings/.

    Returns:
        Digit, speaker and take to waveform, (L,).

    Raises:
        ValueError: If a recording is missing.
    """
    folder = path / "fsdd" / "recordings"
    who = sorted({file.stem.split("_")[1] for file in folder.glob("*_*_*.wav")})
    if not who:
        raise ValueError(
            f"no recordings in {folder}; put the Free Spoken Digit Dataset's into fsdd/recordings/ of a folder, and "
            "name that with paths.data=FOLDER or MM_DATA=FOLDER"
        )
    keys = [(digit, speaker, take) for digit in range(10) for speaker in who for take in EVERY]
    return {key: read_file(folder / f"{key[0]}_{key[1]}_{key[2]}.wav")[0].numpy() for key in keys}


def speakers(clips: Iterable[Clip]) -> list[str]:
    """Return the names of all speakers, sorted."""
    return sorted({speaker for _, speaker, _ in clips})


def check_speaker(name: str | None, known: Sequence[str]) -> None:
    """Raise ValueError if a speaker is held out who has no clips.

    Args:
        name: The held-out speaker, or None.
        known: Names of all speakers.
    """
    if name is not None and name not in known:
        raise ValueError(f"datamodule.held_out: got '{name}', wanted one of {', '.join(known)}{near(name, known)}")
