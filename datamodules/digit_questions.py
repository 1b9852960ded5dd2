"""Visual and spoken question answering on digits: questions about an image and a sound, with short answers in words."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.table import SPLITS, Table
from mm.data.targets import add_target
from mm.datamodules.av_mnist import MNIST, Indexed, read_idx
from mm.datamodules.digits import WORDS
from mm.datamodules.fsdd import RATE, TAKES, read_clips, speakers
from mm.datamodules.spoken_digits import Joined
from mm.types import DataSpec, InputData

QUESTIONS: dict[str, Callable[[int, int], str]] = {
    "which digit is said?": lambda seen, said: WORDS[said],
    "which digit is seen?": lambda seen, said: WORDS[seen],
    "is the picture larger than the sound?": lambda seen, said: "yes" if seen > said else "no",
}
PICTURES = {"train": (0, 55_000), "val": (55_000, 60_000), "test": (60_000, 70_000)}  # of MNIST


class DigitQuestionsDataModule(DataModule):
    """Rows of an image of a digit (MNIST), a clip of a spoken digit (FSDD), a question about them, and its answer.

    The splits share neither images nor clips.

    Args:
        path: Folder with the idx files of MNIST in mnist/ and the Free Spoken Digit Dataset in fsdd/recordings/.
        count: Number of rows of each split: train, val and test.
        data_seed: Random seed of the combinations of image, clip and question.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a source file is missing, or if `count` lacks a split or has a negative number.
    """

    def __init__(self, path: str, count: Mapping[str, int], data_seed: int, **shared: Any):
        super().__init__(**shared)
        if set(count) != set(SPLITS) or min(count.values()) < 0:
            raise ValueError(f"datamodule.count: got {dict(count)}, wanted a number from 0 of {', '.join(SPLITS)}")
        self.path = Path(path)
        self.count = count
        self.data_seed = data_seed

    def read(self) -> Table:
        files = [self.path / "mnist" / f"{name}-ubyte.gz" for name in MNIST]
        for file in files:
            if not file.exists():
                raise ValueError(
                    f"digit_questions: no file {file}; put MNIST's four idx files into mnist/ of a folder, and name "
                    "that with paths.data=FOLDER or MM_DATA=FOLDER"
                )
        images = np.concatenate([read_idx(files[0]), read_idx(files[2])])
        seen = np.concatenate([read_idx(files[1]), read_idx(files[3])]).astype(int)
        clips = read_clips(self.path)
        who = speakers(clips)
        asked = list(QUESTIONS)
        pictures, sounds, texts, answers, split = [], [], [], [], []
        for number, name in enumerate(SPLITS):
            rng = np.random.default_rng([self.data_seed, number])
            for _ in range(self.count[name]):
                picture, digit = rng.integers(*PICTURES[name]), int(rng.integers(10))
                key = digit, who[rng.integers(len(who))], TAKES[name][rng.integers(len(TAKES[name]))]
                question = asked[rng.integers(len(asked))]
                pictures.append(picture)
                sounds.append(([clips[key]], []))
                texts.append(question)
                answers.append(QUESTIONS[question](int(seen[picture]), digit))
                split.append(name)
        table = Table(
            inputs={"text": texts, "vision": Indexed(images, np.array(pictures)), "audio": Joined(sounds)},
            targets={},
            ids=[str(row) for row in range(len(split))],
            split=np.array(split, dtype=object),
            spec=DataSpec(
                inputs={
                    "text": InputData(modality="text"),
                    "vision": InputData(modality="vision", size=(28, 28), channels=1),
                    "audio": InputData(modality="audio", sample_rate=RATE),
                },
                targets={},
            ),
            source="digit_questions",
        )
        add_target(table, "target", ["target"] * len(split), answers, self)
        return table
