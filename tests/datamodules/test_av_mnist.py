"""Against a tiny MNIST and Free Spoken Digit Dataset, written on the spot; and the real ones where there are."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.decomposition import PCA

from mm.datamodules import av_mnist
from mm.datamodules.av_mnist import AVMNISTDataModule, choose_clips, clip_names, project, read_idx, spectrogram

SETTINGS = {"components": 4, "size": 56, "corruption": "wrong_clip", "snr": 0.0, "data_seed": 0}
SHARED = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {}, "seed": 0}
LABEL = np.random.default_rng(0).integers(0, 10, 70_000)


def write_idx(path: Path, data: np.ndarray) -> None:
    head = struct.pack(">HBB", 0, 8, data.ndim) + struct.pack(f">{data.ndim}I", *data.shape)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head + data.astype(np.uint8).tobytes())


def test_idx_files(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 4, 5))
    write_idx(tmp_path / "a.gz", data)
    assert (read_idx(tmp_path / "a.gz") == data).all()
    good = (tmp_path / "a.gz").read_bytes()
    for broken in (good[:-20], b"no gzip", b"", gzip.compress(b"ab"), gzip.compress(gzip.decompress(good)[:-5])):
        (tmp_path / "b.gz").write_bytes(broken)
        with pytest.raises(ValueError, match=r"av_mnist: .*b.gz is damaged .*download it again"):
            read_idx(tmp_path / "b.gz")


@pytest.mark.parametrize("components", [4, 5, 100])
def test_projection_is_that_of_scikit_learn(components: int) -> None:
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(6, 100)) * np.array([[60], [50], [40], [30], [20], [5]])
    images = (rng.normal(size=(900, 6)) @ axes * 0.5 + 128).clip(0, 255).round().astype(np.uint8).reshape(-1, 10, 10)
    flat = images.reshape(900, -1).astype(np.float64)
    pca = PCA(components, svd_solver="full").fit(flat[:800])
    expected = pca.inverse_transform(pca.transform(flat)).clip(0, 255)
    assert np.abs(project(images, 800, components).reshape(900, -1) - expected).max() <= 0.51


def test_clips_of_the_digit_and_wrong_ones() -> None:
    digit = np.array([int(name[0]) for name in clip_names()])
    take = np.array([int(name[:-4].split("_")[2]) for name in clip_names()])
    speakers = {name.split("_")[1] for name in clip_names()}
    assert speakers == {"jackson", "nicolas", "theo", "yweweler"}
    assert len(clip_names()) == 2000
    clean = choose_clips(LABEL, "clean", np.random.default_rng(0))
    assert (digit[clean] == LABEL).all()
    for clip in (clean, choose_clips(LABEL, "wrong_clip", np.random.default_rng(0))):
        assert take[clip[:60_000]].max() == 39
        assert take[clip[60_000:]].min() == 40
        assert len(np.unique(clip)) == 2000  # each is in use
    wrong = digit[clip] != LABEL
    for part in (wrong[:60_000], wrong[60_000:]):  # a random digit is the right one in a tenth of the cases
        assert part.mean() == pytest.approx(0.644 * 0.9, abs=0.02)
    again = choose_clips(LABEL, "wrong_clip", np.random.default_rng(0))
    assert (again == clip).all()
    assert (choose_clips(LABEL, "wrong_clip", np.random.default_rng(1)) != clip).any()


@pytest.mark.parametrize("size", [56, 112])
def test_spectrograms(tmp_path: Path, size: int) -> None:
    """A tone that rises in the middle: frequency upwards, time to the right, the peak white, silence black."""
    time = np.arange(4000) / 8000
    wave = np.where(time < 0.25, np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 3000 * time)) * 0.5
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    image = spectrogram(tmp_path / "a.wav", size, None, np.random.default_rng(0))
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image[:, size // 4].argmax() / size == pytest.approx(1 - 1000 / 4000, abs=0.03)
    assert image[:, 3 * size // 4].argmax() / size == pytest.approx(1 - 3000 / 4000, abs=0.03)
    assert image.max() > 220
    assert np.median(image) < 40
    noisy = spectrogram(tmp_path / "a.wav", size, 0.0, np.random.default_rng(0))
    assert np.median(noisy) > 120


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The right files with nearly nothing in them; MNIST's own lengths."""
    root = tmp_path_factory.mktemp("sources")
    (root / "mnist").mkdir()
    (root / "fsdd/recordings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = np.zeros((70_000, 28, 28), np.uint8)
    images[:, :4, :4] = rng.integers(0, 256, (70_000, 4, 4))
    for name, data in zip(
        av_mnist.MNIST, (images[:60_000], LABEL[:60_000], images[60_000:], LABEL[60_000:]), strict=True
    ):
        write_idx(root / "mnist" / f"{name}-ubyte.gz", data)
    for name in clip_names():
        (root / "fsdd/recordings" / name).write_bytes(b"")
    return root


def build(sources: Path, cache: Path, **changed: object) -> AVMNISTDataModule:
    return AVMNISTDataModule(path=str(sources), cache=str(cache), **SETTINGS | SHARED | changed)


def test_table_and_cache(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed_log: pytest.CaptureFixture
) -> None:
    drawn = []

    def draw(path: Path, size: int, snr: float | None, rng: np.random.Generator) -> np.ndarray:
        drawn.append((path.name, snr))
        return np.full((size, size), int(path.name[0]), np.uint8)

    monkeypatch.setattr(av_mnist, "spectrogram", draw)
    monkeypatch.setattr(av_mnist, "project", lambda images, train, components: images // components)
    table = build(sources, tmp_path).table
    assert [int((table.split == name).sum()) for name in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    assert (table.split[55_000:60_000] == "val").all()
    assert table.inputs["vision"][69_999].shape == (28, 28)
    assert table.inputs["audio"][0].shape == (56, 56)
    assert table.targets["target"].tolist() == LABEL.tolist()
    assert [name for name, _ in drawn] == clip_names()
    assert {snr for _, snr in drawn} == {None}

    drawn.clear()
    again = build(sources, tmp_path, seed=5).table
    assert not drawn  # from the cache
    assert all((again.inputs["audio"][row] == table.inputs["audio"][row]).all() for row in range(0, 70_000, 997))
    noisy = build(sources, tmp_path, corruption="snr", snr=3.0).cached()
    assert {snr for _, snr in drawn} == {3.0}
    assert len(drawn) == 70_000  # each row has noise of its own
    assert [int(name[0]) for name, _ in drawn] == LABEL.tolist()
    assert (noisy.clips[noisy.clip][:, 0, 0] == LABEL).all()
    assert len(list(tmp_path.glob("av_mnist-*"))) == 2

    drawn.clear()
    clips = min(tmp_path.glob("av_mnist-*/clips.npy"), key=lambda f: f.stat().st_size)
    data = bytearray(clips.read_bytes())
    data[-1] ^= 1
    clips.write_bytes(data)
    for changed in ({}, {"corruption": "snr", "snr": 3.0}):
        build(sources, tmp_path, **changed).cached()
    assert len(drawn) == 2000  # the damaged one only
    assert "is damaged (its checksum differs)" in printed_log.readouterr().out


def test_texts_name_the_digit(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_mnist, "spectrogram", lambda path, size, snr, rng: np.zeros((size, size), np.uint8))
    monkeypatch.setattr(av_mnist, "project", lambda images, train, components: images)
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    plain = build(sources, tmp_path).table
    table = build(sources, tmp_path, text=["the digit {}", "{}"]).table
    texts = table.inputs["text"]
    assert [text.removeprefix("the digit ") for text in texts] == [words[d] for d in LABEL]
    for part in (slice(0, 55_000), slice(60_000, None)):
        assert np.mean([text.startswith("the") for text in texts[part]]) == pytest.approx(0.5, abs=0.02)
    assert list(build(sources, tmp_path, text=["the digit {}", "{}"], seed=7).table.inputs["text"]) == texts
    assert build(sources, tmp_path, text=["the digit {}", "{}"], data_seed=1).table.inputs["text"] != texts
    assert (table.targets["target"] == plain.targets["target"]).all()
    assert list(plain.inputs) == ["vision", "audio"]
    assert table.spec.inputs["text"].modality == "text"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": "the digit {}"}, "datamodule.text: got the digit {}, wanted templates such as"),
        ({"text": ["a digit"]}, "'a digit'], wanted templates"),
        ({"corruption": "noise"}, "datamodule.corruption: got 'noise', wanted one of wrong_clip, snr, clean"),
        ({"components": 0}, "got components=0"),
        ({"components": 785}, "wanted components in 1..784"),
        ({"size": 0}, "size=0"),
    ],
)
def test_wrong_settings(changed: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        build(tmp_path, tmp_path, **changed)


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*train-images-idx3-ubyte.gz; put MNIST's .* MM_DATA=FOLDER"):
        build(tmp_path, tmp_path).cached()


def test_the_real_recordings() -> None:
    data = os.environ.get("MM_DATA")
    if not data or not (Path(data) / "fsdd/recordings").is_dir():
        pytest.skip("needs the Free Spoken Digit Dataset in fsdd/recordings/ of the folder MM_DATA, which is not there")
    image = spectrogram(Path(data) / "fsdd/recordings" / clip_names()[0], 56, None, np.random.default_rng(0))
    assert image.max() > 200
    assert (image[: 56 // 2] < image.max()).all() or image.std() > 20
