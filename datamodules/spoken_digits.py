"""Connected digits: clips of the Free Spoken Digit Dataset in sequence, with gaps, and their transcripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.table import SPLITS, Table
from mm.data.targets import add_target
from mm.datamodules.digits import WORDS
from mm.datamodules.fsdd import EVERY, RATE, TAKES, check_speaker, read_clips, speakers
from mm.types import DataSpec, InputData


class SpokenDigitsDataModule(DataModule):
    """Random sequences of digits, each spoken by one speaker, with their transcripts in words as the target.

    Args:
        path: Folder with the recordings in fsdd/recordings/.
        count: Number of sequences of each split: train, val and test.
        digits: Minimum and maximum number of digits per sequence.
        gap: Minimum and maximum duration of the silence between two digits, in seconds.
        held_out: Speaker whose clips, with all takes, are in the test split only, which has no other speaker. None: the
            splits have all speakers, but different takes.
        data_seed: Random seed of the sequences.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If the recordings are missing, or if an argument has an unsupported value.
    """

    def __init__(
        self,
        path: str,
        count: Mapping[str, int],
        digits: Sequence[int],
        gap: Sequence[float],
        held_out: str | None,
        data_seed: int,
        **shared: Any,
    ):
        super().__init__(**shared)
        if len(digits) != 2 or not 1 <= digits[0] <= digits[1]:
            raise ValueError(f"datamodule.digits: got {list(digits)}, wanted the fewest and the most, such as [3, 7]")
        if len(gap) != 2 or not 0 <= gap[0] <= gap[1]:
            raise ValueError(f"datamodule.gap: got {list(gap)}, wanted two lengths in seconds, such as [0.05, 0.3]")
        if set(count) != set(SPLITS) or min(count.values()) < 0:
            raise ValueError(f"datamodule.count: got {dict(count)}, wanted a number from 0 of {', '.join(SPLITS)}")
        self.path = Path(path)
        self.count = count
        self.digits = digits
        self.gap = gap
        self.held_out = held_out
        self.data_seed = data_seed

    def read(self) -> Table:
        clips = read_clips(self.path)
        everybody = speakers(clips)
        check_speaker(self.held_out, everybody)
        said, sounds, ids, split = [], [], [], []
        for number, name in enumerate(SPLITS):
            rng = np.random.default_rng([self.data_seed, number])
            who, takes = everybody, TAKES[name]
            if self.held_out is not None:
                who = [self.held_out] if name == "test" else [one for one in everybody if one != self.held_out]
                takes = EVERY if name == "test" else takes
            for i in range(self.count[name]):
                speaker = who[rng.integers(len(who))]
                digits = rng.integers(0, 10, rng.integers(self.digits[0], self.digits[1] + 1)).tolist()
                parts = [clips[digit, speaker, takes[rng.integers(len(takes))]] for digit in digits]
                sounds.append((parts, [round(RATE * rng.uniform(self.gap[0], self.gap[1])) for _ in digits[1:]]))
                said.append(" ".join(WORDS[digit] for digit in digits))
                ids.append(f"{name}-{i}-{speaker}")
                split.append(name)
        table = Table(
            inputs={"audio": Joined(sounds)},
            targets={},
            ids=ids,
            split=np.array(split, dtype=object),
            spec=DataSpec(inputs={"audio": InputData(modality="audio", sample_rate=RATE)}, targets={}),
            source="spoken_digits",
        )
        add_target(table, "target", ["target"] * len(ids), said, self)
        return table


class Joined(Sequence[tuple[np.ndarray, int]]):
    """Sequence of sounds, one per row, that are concatenated from their clips and gaps on access."""

    def __init__(self, rows: Sequence[tuple[list[np.ndarray], list[int]]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        clips, gaps = self.rows[row]
        parts = [clips[0]]
        for gap, clip in zip(gaps, clips[1:], strict=True):
            parts += [np.zeros(gap, dtype=np.float32), clip]
        return np.concatenate(parts), RATE
