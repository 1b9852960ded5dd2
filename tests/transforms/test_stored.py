import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.stored import Stored, StoredError
from mm.transforms.vision.pixels import ImageTransform


def test_reads_as_the_file_does(tmp_path) -> None:
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    soundfile.write(tmp_path / "a.wav", noise.uniform(-1, 1, (900, 2)), 16_000)
    for transform, name in ((ImageTransform((8, 8), 3), "a.jpg"), (AudioTransform(8000), "a.wav")):
        path = tmp_path / name
        one, other = transform(str(path)), transform(Stored("m/a", path.read_bytes))
        assert torch.equal(one.windows[0], other.windows[0])
    assert AudioTransform(8000).lengths([Stored("a", lambda: pytest.fail("is not read"), 1.5)]) == [1.5]


def test_a_broken_one_is_named() -> None:
    for transform in (ImageTransform((8, 8), 3), AudioTransform(8000)):
        with pytest.raises(ValueError, match="can't read the (image|sound) m/a: "):
            transform(Stored("m/a", lambda: b"nothing"))


def test_what_it_lies_in_is_no_fault_of_its_own() -> None:
    def lost() -> bytes:
        raise StoredError("the shard is gone")

    for transform in (ImageTransform((8, 8), 3), AudioTransform(8000)):
        with pytest.raises(StoredError, match="^the shard is gone$"):
            transform(Stored("m/a", lost))
