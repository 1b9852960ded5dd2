"""What files say of an input before any is decoded."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mm.datamodules.looking import USUAL, look


@pytest.mark.parametrize(("modality", "name"), [("audio", "a.wav"), ("vision", "a.png")])
def test_nothing_is_made_up_where_no_file_can_be_read(tmp_path: Path, modality: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither sound nor picture")
    with pytest.raises(ValueError, match=rf"none of 1 files of modality {modality} .* such as .*{name}; is this the"):
        look([str(tmp_path / name), None], modality, tmp_path / "rows.csv", trained=False)
    known = look([str(tmp_path / name)], modality, tmp_path / "rows.csv", trained=True)
    assert known.sample_rate is None and known.size is None and known.channels is None


def test_most_files_decide(tmp_path: Path) -> None:
    for i, rate in enumerate((8000, 8000, 16000)):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(10), rate)
    (tmp_path / "3.wav").write_bytes(b"broken")
    paths = [str(tmp_path / f"{i}.wav") for i in range(4)]
    assert look(paths, "audio", tmp_path / "rows.csv", trained=False).sample_rate == 8000
    for i, size in enumerate(((30, 20), (30, 20), (40, 20))):
        Image.new("L", size).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    same = look(paths[:2], "vision", tmp_path / "rows.csv", trained=False)
    assert same.size == (20, 30) and same.channels == 1
    assert look(paths, "vision", tmp_path / "rows.csv", trained=False).size == USUAL
