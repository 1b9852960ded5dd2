from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from mm.transforms.corrupt.vision import GaussianBlur, GaussianNoise, Jpeg, Occlusion

ALL = [GaussianNoise(0.5), GaussianBlur(0.1), Occlusion(0.8), Jpeg(5)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(channels: int, height: int = 40, width: int = 60) -> Tensor:
    """Smooth, with some noise: as much in it as in a photograph."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 9, width), indexing="ij")
    waves = torch.stack([(y + c).sin() * x.cos() for c in range(channels)])
    noise = torch.randn(waves.shape, generator=torch.Generator().manual_seed(0))
    return (128 + 90 * waves + 5 * noise).clamp(0, 255).byte()


@pytest.mark.parametrize("corruption", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_severity_0_changes_nothing_and_more_harms_more(corruption, channels):
    pixels = picture(channels)
    before = pixels.clone()
    assert torch.equal(corruption(pixels, 0.0, rng()), pixels)
    harm = []
    for severity in (0.1, 0.3, 0.6, 1.0):
        found = corruption(pixels, severity, rng())
        assert found.shape == pixels.shape
        assert found.dtype == torch.uint8
        harm.append(float((found.float() - pixels.float()).square().mean()))
    assert harm == sorted(harm)
    assert harm[0] < 0.5 * harm[-1]
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("corruption", ALL)
def test_a_single_pixel(corruption):
    assert corruption(torch.full((3, 1, 1), 9, dtype=torch.uint8), 1.0, rng()).shape == (3, 1, 1)


def test_noise_has_its_deviation_and_no_bias():
    grey = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    noise = GaussianNoise(0.2)(grey, 0.5, rng()).float() - 128
    assert float(noise.std()) == pytest.approx(0.1 * 255, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.3)


def test_blur_is_gaussian():
    pixels = picture(1)
    blurred = GaussianBlur(0.1)(pixels, 0.5, rng())  # deviation 0.05 of 40 pixels
    wanted = gaussian_blur(pixels, [17, 17], [2.0, 2.0])
    inside = (slice(None), slice(8, -8), slice(8, -8))  # beyond the edge the two see another picture
    assert (blurred[inside].float() - wanted[inside].float()).abs().max() <= 1


def test_occlusion_is_a_black_rectangle_of_its_area():
    white = torch.full((3, 100, 200), 255, dtype=torch.uint8)
    places = set()
    for seed in range(20):
        black = (Occlusion(0.8)(white, 0.5, rng(seed)) == 0).all(0)
        assert float(black.float().mean()) == pytest.approx(0.4, abs=0.01)
        rows, columns = black.any(1).nonzero().flatten(), black.any(0).nonzero().flatten()
        assert int(black.sum()) == len(rows) * len(columns)
        assert len(rows) == rows[-1] - rows[0] + 1
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 15


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_a_round_trip_through_a_file(channels, tmp_path):
    pixels = picture(channels)
    array = pixels.permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(array if channels == 3 else array[:, :, 0]).save(file, "JPEG", quality=62)  # 100 - 0.4 * (100 - 5)
    wanted = np.asarray(Image.open(file)).reshape(array.shape)
    found = Jpeg(5)(pixels, 0.4, rng())
    assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted)
