import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import RandomHorizontalFlip
from torchvision.transforms.v2 import functional as F

from mm.transforms.vision.pixels import ORIENTATION, ImageTransform, open_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
GREY = COLOUR[:, :, 0]


def finished(transform: ImageTransform, raw: object) -> torch.Tensor:
    """As the encoder reads it. (C, H, W)"""
    pixels = transform(raw).windows[0]
    assert pixels.dtype == torch.uint8
    out = transform.finish(pixels.unsqueeze(0))
    assert torch.equal(transform.finish(out), out)  # what is finished stays
    return out[0]


def read(raw: object, size: tuple[int, int] = (6, 8), channels: int = 3, **how: object) -> np.ndarray:
    """-> (H, W, C) in 0..255"""
    plain = {"mean": [0.0] * channels, "std": [1.0] * channels}
    out = finished(ImageTransform(size, channels, **plain | how), raw)
    assert out.dtype == torch.float32
    assert out.shape == (channels, *size)
    return (out.permute(1, 2, 0) * 255).numpy()


def test_arrays_and_tensors_of_all_shapes() -> None:
    chw = COLOUR.transpose(2, 0, 1)
    read_only = COLOUR.copy()
    read_only.flags.writeable = False
    same = [
        COLOUR,
        chw,
        read_only,
        torch.from_numpy(chw.copy()),
        COLOUR / 255,
        torch.tensor(chw / 255, requires_grad=True),
    ]
    same += [Image.fromarray(COLOUR), COLOUR[::-1][::-1], torch.tensor(COLOUR / 255).half()]
    for raw in same:
        np.testing.assert_allclose(read(raw), COLOUR, atol=0.01)
    for raw in [GREY, GREY[None], GREY[:, :, None], torch.from_numpy(GREY), Image.fromarray(GREY)]:
        np.testing.assert_allclose(read(raw, channels=1)[:, :, 0], GREY, atol=0.01)
        np.testing.assert_allclose(read(raw), np.stack([GREY] * 3, 2), atol=0.01)
    assert set(read(GREY > 99, channels=1).ravel().round().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\), wanted \(H, W\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), "got an array of shape"),
        (np.zeros(4, np.uint8), "got an array of shape"),
        (np.zeros((0, 4), np.uint8), "got an array of shape"),
        (np.zeros((4, 4), np.int64), "got an array of int64, wanted uint8"),
        (np.zeros((4, 4), np.uint16), "got an array of uint16, wanted uint8"),
        (np.array([["a"]]), "wanted uint8"),
        (np.array([[None]]), "got an array of object"),
        (np.full((4, 4), 200.0), "outside 0..1"),
        (np.full((4, 4), np.nan), "outside 0..1"),
        (-np.ones((4, 4)), "outside 0..1"),
        (None, "got NoneType, wanted an image"),
        (b"png", "got bytes, wanted an image"),
    ],
)
def test_no_image(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(raw)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"channels": 2}, "channels: got 2"),
        ({"fit": "squash"}, "fit: got 'squash', wanted one of stretch, crop, pad"),
        ({"size": (0, 4)}, r"size: got \[0, 4\]"),
        ({"size": (4, 4, 3)}, "size"),
        ({"channels": 1, "mean": [0.1, 0.2, 0.3]}, r"mean: got \[0.1, 0.2, 0.3\], wanted a number for each of 1"),
        ({"std": [1.0]}, "std"),
    ],
)
def test_wrong_arguments(how: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(**{"size": (4, 4), "channels": 3} | how)


def test_normalising_as_torchvision_does() -> None:
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.5, 0.3)
    expected = F.normalize(torch.from_numpy(COLOUR.transpose(2, 0, 1) / 255).float(), list(mean), list(std))
    torch.testing.assert_close(finished(ImageTransform((6, 8), 3, mean, std), COLOUR), expected)
    assert (
        finished(ImageTransform((6, 8), 3), np.full((6, 8), 255, np.uint8)).eq(1).all()
    )  # to -1..1 where nothing is said
    assert finished(ImageTransform((6, 8), 1, [0.0], [1.0]), np.full((6, 8), 255, np.uint8)).eq(1).all()


def test_fits_against_torchvision() -> None:
    big = Image.fromarray(RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)
    stretched = np.asarray(F.resize(big, [20, 24], antialias=True))
    assert np.abs(read(big, (20, 24)) - stretched).max() < 3  # reducing_gap=2 costs up to two steps
    cropped = np.asarray(F.resize(F.center_crop(big, [60, 60]), [20, 20], antialias=True))
    inside = np.abs(read(big, (20, 20), fit="crop") - cropped)[1:-1, 1:-1]  # at the edges Pillow sees beyond the cut
    assert inside.max() < 3
    padded = read(Image.new("RGB", (40, 20), "white"), (20, 20), fit="pad")
    assert padded[:5].max() == 0
    assert padded[15:].max() == 0
    assert padded[5:15].min() > 254


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(tmp_path: Path, turn: int) -> None:
    """As a phone saves it: the pixels lie on their side, a tag says so. From a path, and as an opened image."""
    upright = Image.fromarray(np.kron(np.array([[250, 20, 60], [120, 200, 90]], np.uint8), np.ones((16, 16), np.uint8)))
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    (upright if back is None else upright.transpose(back)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    for raw in (str(tmp_path / "a.jpg"), Image.open(tmp_path / "a.jpg")):
        assert np.abs(read(raw, (32, 48), channels=1)[:, :, 0] - np.asarray(upright)).max() < 12


def saved(folder: Path, image: Image.Image, name: str, **how: object) -> str:
    image.save(folder / name, **how)
    return str(folder / name)


def test_transparency_goes_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[:, 4:] = (10, 20, 30, 255)
    image = Image.fromarray(rgba)
    palette = Image.new("P", (8, 6), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.paste(0, (0, 0, 4, 6))
    opaque = image.convert("RGB")  # black means transparent
    paths = [
        saved(tmp_path, image, "rgba.png"),
        saved(tmp_path, palette, "p.png", transparency=0),
        saved(tmp_path, palette, "bytes.png", transparency=b"\x00\xff"),
        saved(tmp_path, opaque, "rgb.png", transparency=(0, 0, 0)),
        saved(tmp_path, palette, "p.gif", transparency=0),
    ]
    for raw in [*paths, image, rgba]:
        seen = read(raw).round()
        assert (seen[:, :4] == 255).all(), raw
        assert (seen[:, 4:] == (10, 20, 30)).all(), raw
    la = Image.merge("LA", [Image.new("L", (8, 6), 40), Image.new("L", (8, 6), 0)])
    assert (read(saved(tmp_path, la, "la.png"), channels=1).round() == 255).all()


def test_depths_and_colours(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    sixteen = read(saved(tmp_path, Image.fromarray(ramp), "16.png"), channels=1)[:, :, 0]
    assert np.abs(sixteen - ramp / 257).max() <= 0.51
    assert read(saved(tmp_path, Image.fromarray(GREY > 99), "1.png")).max() == 255
    floats = Image.fromarray((GREY / 255).astype(np.float32))
    assert np.abs(read(saved(tmp_path, floats, "f.tiff"), channels=1)[:, :, 0] - GREY).max() <= 0.51
    with pytest.raises(ValueError, match=r"outside 0..1"):
        read(Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(ValueError, match="more than 16 bits"):
        read(Image.fromarray(np.full((6, 8), 2**30, np.int32)))
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    assert np.abs(read(saved(tmp_path, red.convert("CMYK"), "c.jpg", quality=95)) - (255, 0, 0)).max() < 12
    frames = [Image.new("P", (8, 6), k) for k in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0])
    gif = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:], duration=9)
    assert (read(gif).round() == (250, 0, 0)).all()  # the first picture


def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Path(saved(tmp_path, Image.fromarray(COLOUR).resize((90, 60)), "good.png")).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.png", "empty.png", "none.png", "."):
        with pytest.raises(ValueError, match="can't read the image"):
            read(tmp_path / name)
    with Image.open(tmp_path / "cut.png") as opened, pytest.raises(ValueError, match="can't read the image"):
        read(opened)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"good.png: .*exceeds limit"):
        open_image(tmp_path / "good.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_fuzzed_files_are_read_or_refused(tmp_path: Path) -> None:
    """Hundreds of damaged files: a ValueError, or pixels; never anything else."""
    rng = np.random.default_rng(1)
    transform = ImageTransform((4, 4), 3)
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.webp"):
        path = Path(saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (24, 24, 3)).astype(np.uint8)), name))
        image = path.read_bytes()
        refused = 0
        for trial in range(60):
            data = bytearray(image[: rng.integers(1, len(image))] if trial % 5 == 0 else image)
            for _ in range(rng.integers(1, 12)):
                data[rng.integers(0, min(len(data), 200))] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert finished(transform, path).isfinite().all()
            except ValueError:
                refused += 1
        assert refused


def test_a_large_jpeg_is_decoded_at_a_fraction(tmp_path):
    """To what it gives whole: smooth pictures lose nothing by it, whatever way up they are saved."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8))
    photo = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    upright = Image.Exif()
    upright[0x0112] = 6  # turned by a quarter
    photo.save(tmp_path / "turned.jpg", quality=95, exif=upright)
    assert open_image(tmp_path / "turned.jpg").size == (1200, 1600)
    assert open_image(tmp_path / "turned.jpg", least=128).size == (150, 200)
    for fit in ("stretch", "crop", "pad"):
        transform = ImageTransform([64, 64], 3, mean=[0.0] * 3, std=[1.0] * 3, fit=fit)
        whole = finished(transform, open_image(tmp_path / "turned.jpg"))
        assert (finished(transform, tmp_path / "turned.jpg") - whole).abs().max() < 4 / 255


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(30, 40), (40, 30), (36, 24)])
@pytest.mark.parametrize("large", [False, True])
def test_the_frame_says_where_pixels_are_from(tmp_path: Path, fit: str, size: tuple[int, int], large: bool) -> None:
    """White squares of the original are found in the pixels where the frame puts them, also in a JPEG that is decoded
    at a fraction, and turned upright."""
    width, height = (480, 320) if large else (48, 32)
    side, centres = width // 12, [(width // 2 - width // 8, height // 2), (width // 2, height // 2 + height // 8)]
    array = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in enumerate(centres):
        array[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2, channel] = 255
    image = Image.fromarray(array)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by a quarter, clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    for raw in (image, tmp_path / "a.jpg"):
        read = ImageTransform(size, 3, fit=fit, return_original_size=True)(raw)
        assert read.meta[0]["size"].tolist() == [width, height]
        x0, y0, x1, y1 = read.meta[0]["frame"].tolist()
        if fit == "crop":
            assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
        if fit == "pad":
            assert x0 <= 0 and y0 <= 0 and x1 >= width and y1 >= height
        for channel, (x, y) in enumerate(centres):
            weight = read.windows[0][channel].double()
            weight = weight * (weight > 60)
            across = float((weight.sum(0) * (torch.arange(size[1]) + 0.5)).sum() / weight.sum() / size[1])
            down = float((weight.sum(1) * (torch.arange(size[0]) + 0.5)).sum() / weight.sum() / size[0])
            assert [across, down] == pytest.approx([(x - x0) / (x1 - x0), (y - y0) / (y1 - y0)], abs=0.02)


def test_a_frame_is_told_only_when_asked_for() -> None:
    assert not ImageTransform((4, 4), 3)(COLOUR).meta
    told = ImageTransform((6, 8), 3, return_original_size=True, augment=[RandomHorizontalFlip(1)])
    assert told(COLOUR, train=True).meta[0]["frame"].tolist() == [8, 0, 0, 6]
    assert told(COLOUR).meta[0]["frame"].tolist() == [0, 0, 8, 6]
    grey = ImageTransform((6, 8), 1, return_original_size=True)(GREY)  # already as wanted
    assert grey.meta[0]["frame"].tolist() == [0, 0, 8, 6] and grey.meta[0]["size"].tolist() == [8, 6]
    wide = ImageTransform((10, 10), 3, fit="pad", return_original_size=True)(np.zeros((5, 10, 3), np.uint8))
    assert wide.meta[0]["frame"].tolist() == [0, -2, 10, 8]  # Pillow rounds the margin of 2.5 down
    middle = ImageTransform((10, 10), 3, fit="crop", return_original_size=True)(np.zeros((5, 10, 3), np.uint8))
    assert middle.meta[0]["frame"].tolist() == [2.5, 0, 7.5, 5]


def notes(raw: object, channels: int = 3, **how: object) -> tuple[str, ...]:
    return ImageTransform((6, 8), channels, **how)(raw).notes


def test_twelve_bits_in_sixteen_are_not_black(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 48).reshape(6, 8).astype(np.uint16)
    path = saved(tmp_path, Image.fromarray(ramp), "12.png")
    assert read(path, channels=1).max() < 17 and notes(path, 1) == ("dark",)
    seen = read(path, channels=1, max_value=4095)[:, :, 0]
    assert np.abs(seen - ramp / 4095 * 255).max() <= 0.51 and notes(path, 1, max_value=4095) == ()
    assert read(path, channels=1, max_value=1023).max() == 255 and notes(path, 1, max_value=1023) == ("clipped",)
    assert notes(saved(tmp_path, Image.fromarray(ramp * 0), "black.png"), 1) == ()  # which it is
    for wrong in (0, 65_536):
        with pytest.raises(ValueError, match=f"max_value: got {wrong}, wanted from 1 to 65535"):
            ImageTransform((6, 8), 1, max_value=wrong)


def colour_16(path: Path, top: int) -> str:
    """A PNG file of 16 bits a channel, which Pillow cannot write."""
    rows = np.linspace(0, top, 6 * 8 * 3).astype(">u2").reshape(6, 24)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return str(path)


def test_colours_of_sixteen_bits(tmp_path: Path) -> None:
    assert read(colour_16(tmp_path / "a.png", 65_535)).max() == 255
    with pytest.raises(ValueError, match=r"no value above 4,095 of 65,535, which is black .*; save it with 8 bits"):
        read(colour_16(tmp_path / "a.png", 4095))


def test_colour_that_is_read_as_grey_is_noted(tmp_path: Path) -> None:
    red = saved(tmp_path, Image.new("RGB", (8, 6), (220, 30, 30)), "red.png")
    grey = Image.fromarray(np.stack([GREY] * 3, 2))
    assert notes(red, 1) == ("colour_dropped",) and notes(red, 3) == ()
    assert notes(saved(tmp_path, grey.resize((800, 600)), "grey.jpg"), 1) == ()
    assert notes(saved(tmp_path, Image.new("CMYK", (8, 6), (0, 200, 200, 0)), "c.jpg"), 1) == ("colour_dropped",)
    palette = Image.new("P", (8, 6), 0)
    palette.putpalette([0, 250, 0])
    assert notes(saved(tmp_path, palette, "p.png"), 1) == ("colour_dropped",)
    large = Image.new("L", (900, 900), 90).convert("RGB")
    large.paste((255, 0, 0), (400, 400, 440, 440))
    assert notes(large, 1) == ("colour_dropped",)
    assert notes(np.stack([GREY] * 3), 1) == () and notes(COLOUR, 1) == ("colour_dropped",)


def test_what_is_left_out_of_a_file_is_noted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    more = {"save_all": True, "append_images": frames[1:]}
    for name in ("a.gif", "a.webp", "a.png", "a.tiff"):
        path = saved(tmp_path, frames[0], name, **more)
        assert notes(path) == ("frames_dropped",), name
        assert np.abs(read(path) - (255, 0, 0)).max() < 4
        assert notes(saved(tmp_path, frames[0], name)) == ()
    assert notes(saved(tmp_path, Image.new("RGBA", (8, 6), (9, 9, 9, 100)), "b.png")) == ("transparent",)
    assert notes(saved(tmp_path, Image.new("RGBA", (8, 6), (9, 9, 9, 255)), "b.png")) == ()
    assert notes(saved(tmp_path, Image.new("LA", (8, 6), (9, 100)), "b.png"), 1) == ("transparent",)
    both = Image.new("RGBA", (8, 6), (200, 9, 9, 100))
    assert notes(both, 1) == ("transparent", "colour_dropped")


def test_a_float_picture_beyond_its_range_is_told_with_its_range(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY.astype(np.float32)), "f.tiff")
    with pytest.raises(ValueError, match=rf"outside 0..1 \(from {GREY.min()} to {GREY.max()}\), wanted uint8"):
        read(path)
