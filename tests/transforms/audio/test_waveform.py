import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from mm.transforms.audio.waveform import AudioTransform, read_file
from mm.transforms.stored import Stored

RNG = np.random.default_rng(0)
WAVE = (RNG.normal(0, 0.2, 2000)).clip(-0.9, 0.9).astype(np.float32)
STEREO = np.stack([WAVE, WAVE[::-1]], 1)


def read(raw: object, rate: int = 16_000, **how: object) -> torch.Tensor:
    return AudioTransform(rate, **how)(raw).windows[0]


@pytest.mark.parametrize(
    ("subtype", "error"), [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-7), ("FLOAT", 0)]
)
def test_depths(tmp_path: Path, subtype: str, error: float) -> None:
    soundfile.write(tmp_path / "a.wav", WAVE, 16_000, subtype=subtype)
    wave = read(str(tmp_path / "a.wav"))
    assert wave.shape == (2000,)
    assert wave.dtype == torch.float32
    assert np.abs(wave.numpy() - WAVE).max() <= error


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", STEREO, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "a.wav").numpy(), STEREO.mean(1), atol=1e-7)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    if suffix.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {suffix}")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / f"a.{suffix}", tone, 16_000)
    wave = read(tmp_path / f"a.{suffix}")
    spectrum = torch.fft.rfft(wave[: 8000 * (len(wave) // 8000)]).abs()
    assert spectrum.argmax() * 16_000 / len(wave[: 8000 * (len(wave) // 8000)]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8000, 16_000), (48_000, 44_100), (11_025, 8000)])
def test_rates(tmp_path: Path, rate: int, wanted: int) -> None:
    soundfile.write(tmp_path / "a.wav", STEREO, rate, subtype="FLOAT")
    expected = torchaudio.functional.resample(torch.from_numpy(STEREO.T.copy()).mean(0), rate, wanted)
    torch.testing.assert_close(read(tmp_path / "a.wav", wanted), expected)
    torch.testing.assert_close(read((STEREO.mean(1), rate), wanted), expected)


@pytest.mark.parametrize(
    "raw",
    [
        WAVE,
        WAVE.astype(np.float64),
        WAVE[::-1][::-1],
        torch.from_numpy(WAVE),
        torch.tensor(WAVE, requires_grad=True),
        (WAVE, 16_000),
    ],
)
def test_arrays(raw: object) -> None:
    torch.testing.assert_close(read(raw), torch.from_numpy(WAVE))


def test_arrays_that_can_not_be_written_to() -> None:
    wave = WAVE[::-1].copy()
    wave.flags.writeable = False
    assert read(wave).numpy().tolist() == wave.tolist()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (STEREO, r"got float32 of shape \(2000, 2\), wanted floats \(L,\) in -1..1; average the channels"),
        (np.zeros((), np.float32), r"shape \(\)"),
        (np.zeros(5, np.int16), "got int16 of shape"),
        (np.array(["a"]), "wanted floats"),
        (np.array([object()]), "got object"),
        (torch.zeros(5, dtype=torch.int32), "got torch.int32"),
        (np.zeros(0, np.float32), "the sound is empty"),
        (np.array([0, np.nan]), "NaN or infinite"),
        (np.array([0, np.inf]), "NaN or infinite"),
        ((WAVE, 0), "got 0 as sample rate"),
        ((WAVE, "16k"), "got '16k' as sample rate"),
        ((WAVE, 44_100.5), "as sample rate"),
        (("a.wav", 8000), "got tuple, wanted a sound"),
        (None, "got NoneType, wanted a sound"),
        (5, "got int, wanted a sound"),
    ],
)
def test_no_sound(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(raw)


def test_broken_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), 16_000, subtype="FLOAT")
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "a.raw").write_bytes(b"1234")
    with pytest.raises(ValueError, match="the sound is empty"):
        read(tmp_path / "empty.wav")
    with pytest.raises(ValueError, match="NaN"):
        read(tmp_path / "nan.wav")
    for name in ("zero.wav", "text.wav", "none.wav", "a.raw"):
        with pytest.raises(ValueError, match=rf"can't read the sound .*{name}"):
            read(tmp_path / name)
    with pytest.raises(ValueError, match="can't read the sound"):
        read(tmp_path)


def test_a_broken_header_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", WAVE, 2_000_000_011)
    with pytest.raises(ValueError, match="2000000011 Hz can't be resampled to 16000 Hz; is the file's header broken"):
        read(tmp_path / "a.wav")

    def promises_terabytes(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(soundfile.SoundFile, "read", promises_terabytes)  # mp3 files with a changed byte do so
    with pytest.raises(ValueError, match=r"can't read the sound .*7 TiB"):
        read(tmp_path / "a.wav")


def test_fuzzed_files_are_read_or_refused(tmp_path: Path) -> None:
    """A thousand damaged files: a ValueError, or a sound; never anything else."""
    rng = np.random.default_rng(0)
    transform = AudioTransform(16_000, max_length=100)
    for suffix, subtype in (("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", None), ("aiff", None)):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, WAVE, 16_000, subtype=subtype)
        sound = path.read_bytes()
        refused = 0
        for trial in range(60):
            data = bytearray(sound[: rng.integers(1, len(sound))] if trial % 5 == 0 else sound)
            for _ in range(rng.integers(1, 8)):
                data[rng.integers(0, min(len(data), 80))] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert transform(path).windows[0].isfinite().all()
            except ValueError:
                refused += 1
        assert 0 < refused < 60


def test_too_long() -> None:
    read = AudioTransform(16_000, 500)(WAVE)
    assert read.cut
    assert read.windows[0].tolist() == WAVE[:500].tolist()
    windows = AudioTransform(16_000, 500, "window", 0.2)(WAVE).windows
    assert [len(w) for w in windows] == [500, 500, 500, 500, 500]
    assert windows[-1].tolist() == WAVE[-500:].tolist()
    assert windows[1].tolist() == WAVE[400:900].tolist()
    with pytest.raises(ValueError, match="2000 samples are too long, at most 500"):
        AudioTransform(16_000, 500, "error")(WAVE)


def test_samples_beyond_the_range_of_floats_are_named() -> None:
    with pytest.raises(ValueError, match=r"samples go from 3e\+38 to 3e\+38, wanted floats in about -1..1"):
        read(np.full(100, 3e38, dtype=np.float32))  # whose sum is infinite, though no sample is
    with pytest.raises(
        ValueError, match=r"samples go from -29484 to 23182.7, .*; divide them by .* 32,768 for 16 bits"
    ):
        read(WAVE / np.abs(WAVE).max() * 29484)
    assert read(WAVE * 4).abs().max() > 1.5  # a loud mix is no mistake


CONTAINERS = [
    ("WAV", "PCM_16"),
    ("WAVEX", "PCM_24"),
    ("WAV", "MS_ADPCM"),
    ("WAV", "ULAW"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("SVX", "PCM_16"),
    ("NIST", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def noisy(count: int = 48_000) -> np.ndarray:
    """Frames of a size of their own, in every codec."""
    return (np.random.default_rng(3).normal(0, 0.2, count) * np.hanning(count)).clip(-0.9, 0.9).astype(np.float32)


def encoded(path: Path, container: str, subtype: str, **how: object) -> bytes:
    if container not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {container}")
    soundfile.write(path, noisy(), 16_000, format=container, subtype=subtype, **how)
    return path.read_bytes()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("container", "subtype"), CONTAINERS)
def test_a_file_that_is_cut_off_is_no_shorter_sound(tmp_path: Path, container: str, subtype: str, stored: bool) -> None:
    """At any byte: what is left is refused, or every sample is there. An Ogg file may end with a whole page."""
    path = tmp_path / "a"
    data = encoded(path, container, subtype)
    count = len(read(path))
    assert count >= 48_000
    start = data.rfind(b"OggS")
    rng = np.random.default_rng(5)
    for end in [len(data) // 2, len(data) - 2000, start + 2, start + 20, *rng.integers(100, len(data) - 5000, 20)]:
        part = data[: int(end)]
        if end < 0 or (container == "OGG" and data[int(end) : int(end) + 4] == b"OggS"):
            continue
        path.write_bytes(part)
        raw = Stored("a", partial(bytes, part)) if stored else str(path)
        try:
            assert len(read(raw)) == count, end
        except ValueError as error:
            assert "cut off" in str(error) or "can't read the sound" in str(error)
        else:
            raise AssertionError(f"{container} cut at {end} of {len(data)} is read")


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    data = encoded(tmp_path / "a.wav", "WAV", "PCM_16")
    (tmp_path / "a.wav").write_bytes(data[: 44 + 2000])
    told = r"a.wav is cut off: its header promises 96,000 bytes of samples, the file holds 2,000; copy it again"
    with pytest.raises(ValueError, match=told):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
@pytest.mark.parametrize("whole", [0, 0xFFFF_FFFF])
def test_a_length_that_was_not_known_when_it_was_written(tmp_path: Path, size: int, whole: int) -> None:
    """As ffmpeg, GStreamer, SoX and arecord leave it that write to a pipe: the sound goes on to the file's end."""
    data = bytearray(encoded(tmp_path / "a.wav", "WAV", "PCM_16"))
    assert data[36:40] == b"data"
    expected = read(tmp_path / "a.wav")
    data[4:8], data[40:44] = struct.pack("<I", whole), struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    assert torch.equal(read(tmp_path / "a.wav"), expected)
    assert torch.equal(read(Stored("a.wav", lambda: bytes(data))), expected)
    tags = b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "a.wav").write_bytes(data[:40] + struct.pack("<I", 0) + tags)
    with pytest.raises(ValueError, match="the sound is empty: it has 0 samples"):
        read(tmp_path / "a.wav")


def test_a_flac_file_that_does_not_count_its_samples(tmp_path: Path) -> None:
    """As ffmpeg leaves it that writes to a pipe."""
    data = bytearray(encoded(tmp_path / "a.flac", "FLAC", "PCM_16"))
    data[21] &= 0xF0  # 36 bits of STREAMINFO
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.flac does not say how long it is; write it anew \(ffmpeg -i OLD NEW\)"):
        read(tmp_path / "a.flac")
    assert AudioTransform(16_000).lengths([str(tmp_path / "a.flac")]) == [0.0]


def test_an_mp3_file_without_a_count_of_frames_is_read_as_it_is(tmp_path: Path) -> None:
    """Nothing tells how long it was."""
    data = encoded(tmp_path / "a.mp3", "MP3", "MPEG_LAYER_III").replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    assert 10_000 < len(read(tmp_path / "a.mp3")) < 40_000


@pytest.mark.parametrize("rate", [1, 50, 1_600_001])
def test_rates_that_no_sound_has(tmp_path: Path, rate: int) -> None:
    with pytest.raises(ValueError, match=f"{rate} Hz can't be resampled to 16000 Hz; is the file's header broken"):
        read((WAVE, rate))


def test_what_was_changed_is_noted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", STEREO, 8000)
    soundfile.write(tmp_path / "b.wav", WAVE, 44_100)
    soundfile.write(tmp_path / "c.wav", WAVE, 16_000)
    notes = [AudioTransform(16_000)(tmp_path / f"{name}.wav").notes for name in "abc"]
    assert notes == [("mixed_down", "upsampled"), ("downsampled",), ()]


def test_a_file_as_datasets_read_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", STEREO, 8000, subtype="FLOAT")
    wave, rate = read_file(tmp_path / "a.wav")
    assert rate == 8000
    np.testing.assert_allclose(wave.numpy(), STEREO.mean(1), atol=1e-7)
