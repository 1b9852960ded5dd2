import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import conf
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.corrupt.corrupted import CorruptedTransform, DroppedInput
from mm.transforms.stored import Stored
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform

NODES: Any = OmegaConf.load(Path(conf.__path__[0]) / "robustness/default.yaml").available
ALL = [(modality, name) for modality, nodes in NODES.items() for name in nodes]
RNG = np.random.default_rng(0)


def wav(samples: np.ndarray) -> Stored:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype="FLOAT")
    return Stored("a.wav", file.getvalue)


# The same content twice, then nothing.
TEXT = "a good many words, of which some are long"
IMAGE = RNG.random((20, 20, 3)).astype(np.float32)
SOUND = RNG.normal(0, 0.1, 8000).astype(np.float32)
RAW = {"text": [TEXT, TEXT, ""], "vision": [IMAGE, IMAGE, None], "audio": [wav(SOUND), wav(SOUND), None]}
TRANSFORMS = {
    "text": TextTransform("bytes", max_length=12, overflow="window"),
    "vision": ImageTransform((8, 8), 3),
    "audio": AudioTransform(4000, max_length=1500, overflow="window"),
}


def read(modality: str, name: str, row: int, severity: float, seed: int = 0) -> list[torch.Tensor]:
    corruption = instantiate(NODES[modality][name], _convert_="all")
    return CorruptedTransform(TRANSFORMS[modality], RAW[modality], modality, corruption, severity, seed)(row).windows


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_severity_0_is_the_transform_itself(modality, name):
    assert same(read(modality, name, 0, 0.0), TRANSFORMS[modality](RAW[modality][0]).windows)
    assert read(modality, name, 2, 1.0) == []


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_what_is_random_follows_from_seed_and_row(modality, name):
    first = read(modality, name, 0, 0.8)
    assert not same(first, TRANSFORMS[modality](RAW[modality][0]).windows)
    assert same(first, read(modality, name, 0, 0.8))
    if name not in ("gaussian_blur", "jpeg", "clipping"):  # in these nothing is random
        assert not same(first, read(modality, name, 1, 0.8))
        assert not same(first, read(modality, name, 0, 0.8, seed=1))


def test_a_sound_is_corrupted_whole_at_its_own_rate():
    class Doubled:
        def __call__(self, wave, rate, severity, rng):
            assert (len(wave), rate, severity) == (8000, 8000, 0.5)
            return 2 * wave

    found = CorruptedTransform(TRANSFORMS["audio"], RAW["audio"], "audio", Doubled(), 0.5, 0)(0).windows
    assert len(found) > 1
    assert same([x / 2 for x in found], TRANSFORMS["audio"](RAW["audio"][0]).windows)


def test_rows_without():
    without = DroppedInput(CorruptedTransform(TRANSFORMS["text"], RAW["text"], "text", lambda x, **_: x, 0.0, 0), [1])
    assert len(without(0).windows) > 1
    assert without(1).windows == []
    assert [without(row).taken for row in (0, 1)] == [False, True]


def test_what_is_not_there_is_not_taken():
    assert not DroppedInput(CorruptedTransform(TRANSFORMS["text"], RAW["text"], "text", None, 0.0, 0), [2])(2).taken


def test_an_unknown_transform_is_refused():
    with pytest.raises(
        ValueError, match="corruptions of vision support ImageTransform, but the model reads it by TextTransform"
    ):
        CorruptedTransform(TRANSFORMS["text"], RAW["vision"], "vision", None, 0.5, 0)  # type: ignore[arg-type]
