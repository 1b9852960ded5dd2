"""What files say of an input before any is decoded."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mm.modalities import get_modality, vision
from mm.modalities._probing import choose
from mm.modalities.vision import USUAL, used_range


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


def pictures(folder: Path, *images: Image.Image) -> list[str]:
    paths = [str(folder / f"{i}.png") for i in range(len(images))]
    for image, path in zip(images, paths):
        image.save(path)
    return paths


def look(raw: list, modality: str, source: Path, trained: bool, column: str = ""):
    return get_modality(modality).probe(raw, source, trained, column)


def seen(folder: Path, paths: list[str], modality: str = "vision", trained: bool = False):
    return look(paths, modality, folder / "rows.csv", trained, "photo")


def test_one_picture_of_colour_among_hundreds_is_seen(tmp_path: Path, printed_log: pytest.CaptureFixture[str]) -> None:
    images = [Image.new("L", (16, 16))] * 300
    images[7] = Image.new("RGB", (16, 16))
    paths = pictures(tmp_path, *images)
    assert seen(tmp_path, paths).channels == 3
    assert (
        "rows.csv: photo: pictures of 16x16 pixels, colour (299 are grey) (all 300 looked at)"
        in printed_log.readouterr().out
    )
    del paths[7]
    assert seen(tmp_path, paths).channels == 1
    assert "rows.csv: photo: pictures of 16x16 pixels, grey (all 299 looked at)" in printed_log.readouterr().out
    assert seen(tmp_path, paths, trained=True).channels == 1
    assert not printed_log.readouterr().out


def test_of_many_files_some_are_drawn(tmp_path: Path, monkeypatch, printed_log: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(vision, "HEADERS", 50)
    monkeypatch.setattr(vision, "SAMPLE", 40)
    paths = pictures(tmp_path, *[Image.new("L", (16, 16))] * 60)
    assert seen(tmp_path, paths).channels == 1
    assert "of 60 looked at)" in printed_log.readouterr().out
    assert choose(10_000, 10_000, 2_000) == list(range(10_000))
    drawn = choose(1_000_000, 10_000, 2_000)
    assert drawn == choose(1_000_000, 10_000, 2_000)
    assert {0, 999_999} <= set(drawn) and 1_990 <= len(drawn) <= 2_000


def test_a_few_pictures_of_another_size_do_not_decide(tmp_path: Path, printed_log: pytest.CaptureFixture[str]) -> None:
    small, large = Image.new("L", (30, 20)), Image.new("L", (300, 200))
    assert seen(tmp_path, pictures(tmp_path, *[small] * 39, large)).size == (20, 30)
    assert "pictures of 30x20 pixels, to which 1 of 1 other sizes are brought, grey" in printed_log.readouterr().out
    assert seen(tmp_path, pictures(tmp_path, *[small] * 9, large)).size == USUAL
    assert "pictures of 224x224 pixels, to which 10 of 2 other sizes are brought" in printed_log.readouterr().out


def test_the_bits_that_are_used(tmp_path: Path, printed_log: pytest.CaptureFixture[str]) -> None:
    twelve = Image.fromarray(np.array([[0, 4000]], np.uint16))
    paths = pictures(tmp_path, *[twelve] * 3, Image.new("L", (2, 1)))
    assert seen(tmp_path, paths).max_value == 4095
    told = printed_log.readouterr().out
    assert "16 bits per channel; the largest value seen is 4,000, so 4,095 is read as white" in told
    full = Image.fromarray(np.array([[0, 40_000]], np.uint16))
    assert seen(tmp_path, pictures(tmp_path, twelve, full)).max_value is None
    assert seen(tmp_path, pictures(tmp_path, Image.new("L", (2, 1)))).max_value is None
    tops = (0, 1, 255, 256, 1023, 1024, 4095, 4096, 16_383, 16_384, 65_535)
    assert [used_range(top) for top in tops] == [None, 255, 255, 1023, 1023, 4095, 4095, 16_383, 16_383, None, None]


def test_rates_are_told(tmp_path: Path, printed_log: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / f"{i}.wav") for i in range(3)]
    for path, rate in zip(paths, (8000, 44_100, 8000)):
        soundfile.write(path, np.zeros(10), rate)
    assert seen(tmp_path, paths, "audio").sample_rate == 8000
    told = "photo: sounds at 8,000 Hz, to which others are resampled: 2 at 8,000, 1 at 44,100 (all 3 looked at)"
    assert told in printed_log.readouterr().out
