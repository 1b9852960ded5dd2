"""The built-in default data set: digits as noisy images, sounds and texts, which are clear only in combination."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.splitting import make_split
from mm.data.table import Table
from mm.data.targets import add_target
from mm.messages import near
from mm.types import DataSpec, InputData

RATE = 8000  # Hz
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz, ITU-T Q.23: rows and columns of a telephone's keys
KEYS = {
    "1": (0, 0),
    "2": (0, 1),
    "3": (0, 2),
    "4": (1, 0),
    "5": (1, 1),
    "6": (1, 2),
    "7": (2, 0),
    "8": (2, 1),
    "9": (2, 2),
}
KEYS["0"] = (3, 1)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHRASES = ("{}", "the {}", "a {} here", "digit {}", "it says {}", "press {} now", "number {}")
TOLD = ("digit", "heard", "parity", "sum", "tags")
SOUNDS = ("same", "another")
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


class DigitsDataModule(DataModule):
    """scikit-learn's 1,797 handwritten digits (8x8), each with the tone pair of its telephone key and a written phrase.

    Args:
        pixel_noise: Standard deviation of the noise on pixels in 0..1.
        snr: Signal-to-noise ratio of the tones in dB.
        seconds: Duration of the tones in seconds.
        typos: Probability that a letter of the phrase is replaced.
        noise_seed: Random seed of the noise of all rows.
        sound: "same" if the tones are those of the written digit, or "another" if they are those of a random digit.
        targets: Target name to the predicted value: "digit" (in image and text), "heard" (the digit of the tones),
            "parity" (of the digit), "sum" (of digit and heard) or "tags" (one per word of the text: which word is the
            digit).
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If an argument has an unsupported value.
    """

    def __init__(
        self,
        pixel_noise: float,
        snr: float,
        seconds: float,
        typos: float,
        noise_seed: int,
        sound: str = "same",
        targets: Mapping[str, str] | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        if sound not in SOUNDS:
            raise ValueError(f"datamodule.sound: got '{sound}', wanted one of {', '.join(SOUNDS)}")
        self.told = dict(targets or {"target": "digit"})
        for name, what in self.told.items():
            if what not in TOLD:
                raise ValueError(
                    f"datamodule.targets.{name}: got '{what}', wanted one of {', '.join(TOLD)}{near(str(what), TOLD)}"
                )
        if round(seconds * RATE) < 1 or pixel_noise < 0 or not 0 <= typos <= 1:
            raise ValueError(
                f"datamodule: got seconds={seconds}, pixel_noise={pixel_noise}, typos={typos}, wanted seconds above 0, "
                "pixel_noise from 0, typos in 0..1"
            )
        self.pixel_noise = pixel_noise
        self.snr = snr
        self.seconds = seconds
        self.typos = typos
        self.noise_seed = noise_seed
        self.sound = sound

    def read(self) -> Table:
        from sklearn.datasets import load_digits  # slow to import, and needed by this data set only

        data: Any = load_digits()
        digits = data.target.tolist()
        heard = digits if self.sound == "same" else others(len(digits), self.noise_seed)
        phrases, texts, images, sounds = draw_rows(
            data.images, digits, heard, self.noise_seed, self.pixel_noise, self.typos, self.seconds, self.snr
        )
        split = make_split(len(digits), self.split, data.target)
        table = Table(
            inputs={"text": texts, "vision": images, "audio": sounds},
            targets={},
            ids=[str(row) for row in range(len(digits))],
            split=split,
            spec=DataSpec(
                inputs={
                    "text": InputData(modality="text"),
                    "vision": InputData(modality="vision", size=(8, 8), channels=1),
                    "audio": InputData(modality="audio", sample_rate=RATE),
                },
                targets={},
            ),
            source="digits",
        )
        for name, what in self.told.items():
            add_target(table, name, [name] * len(digits), cells(what, digits, heard, phrases), self)
        return table


def draw_rows(
    pictures: np.ndarray,
    digits: Sequence[int],
    heard: Sequence[int],
    noise_seed: int,
    pixel_noise: float,
    typos: float,
    seconds: float,
    snr: float,
) -> tuple[list[str], list[str], list[np.ndarray], list[np.ndarray]]:
    """Draw the noisy inputs of each row, from a random generator per row.

    Args:
        pictures: Clean images, (rows, 8, 8), with values from 0 to 16.
        digits: Digit of each row in its image and text.
        heard: Digit of each row in its tones.
        noise_seed: Random seed; it is combined with the index of the row.
        pixel_noise: Standard deviation of the noise on pixels in 0..1.
        typos: Probability that a letter of the phrase is replaced.
        seconds: Duration of the tones in seconds.
        snr: Signal-to-noise ratio of the tones in dB.

    Returns:
        The phrases with a placeholder for the digit, the texts, the images of (8, 8) in 0..1, and the tones.
    """
    phrases, texts, images, sounds = [], [], [], []
    for row, digit in enumerate(digits):
        rng = np.random.default_rng([noise_seed, row])
        phrases.append(PHRASES[rng.integers(len(PHRASES))])
        texts.append(misspelt(phrases[-1].format(WORDS[digit]), typos, rng))
        noise = rng.normal(0, pixel_noise, (8, 8))
        images.append((pictures[row] / 16 + noise).clip(0, 1).astype(np.float32))
        sounds.append(tones(heard[row], seconds, snr, rng))
    return phrases, texts, images, sounds


def others(count: int, seed: int) -> list[int]:
    """Draw random digits, independent of those of the rows.

    Args:
        count: Number of digits.
        seed: Random seed.
    """
    return np.random.default_rng([seed, count, len(SOUNDS)]).integers(0, 10, count).tolist()


def cells(what: str, digits: Sequence[int], heard: Sequence[int], phrases: Sequence[str]) -> list[Any]:
    """Return the cells of a target, as they would be written in a table.

    Args:
        what: The predicted value, one of `TOLD`.
        digits: Digit of each row in its image and text.
        heard: Digit of each row in its tones.
        phrases: Phrase of each row, with a placeholder for the digit.
    """
    if what == "tags":
        return [["B-digit" if word == "{}" else "O" for word in phrase.split()] for phrase in phrases]
    if what == "sum":
        return [a + b for a, b in zip(digits, heard, strict=True)]
    if what == "parity":
        return [("even", "odd")[digit % 2] for digit in digits]
    return list(digits if what == "digit" else heard)


def tones(digit: int, seconds: float, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Synthesise the two sine tones of a telephone key, with random phases and white noise.

    Args:
        digit: The key.
        seconds: Duration in seconds.
        snr: Signal-to-noise ratio in dB.
        rng: Random generator of the phases and the noise.

    Returns:
        The waveform, (seconds * RATE,) float32, with a peak of 1.
    """
    low, high = KEYS[str(digit)]
    time = np.arange(round(seconds * RATE)) / RATE
    phase = rng.uniform(0, 2 * np.pi, 2)
    wave = np.sin(2 * np.pi * LOW[low] * time + phase[0]) + np.sin(2 * np.pi * HIGH[high] * time + phase[1])  # power 1
    wave += rng.normal(0, 10 ** (-snr / 20), len(time))
    return (wave / np.abs(wave).max()).astype(np.float32)


def misspelt(said: str, typos: float, rng: np.random.Generator) -> str:
    """Replace random letters of a phrase by random letters.

    Args:
        said: The phrase.
        typos: Probability that a letter is replaced.
        rng: Random generator.
    """
    text = np.array(list(said))
    wrong = (rng.random(len(text)) < typos) & (text != " ")
    text[wrong] = rng.choice(LETTERS, int(wrong.sum()))
    return "".join(text)
