import numpy as np

from mm.baselines.pictures import (
    CELLS,
    LEVELS,
    ORIENTATIONS,
    SIDE,
    colour_histogram,
    gradient_histograms,
    picture_histograms,
)


def stripes() -> np.ndarray:
    """A picture whose grey values rise to the right, (3, SIDE, SIDE)."""
    return np.tile(np.arange(SIDE, dtype=np.uint8) * 3, (3, SIDE, 1))


def test_gradients_of_a_ramp_have_a_single_orientation():
    across = gradient_histograms(stripes()).reshape(CELLS, CELLS, ORIENTATIONS)
    down = gradient_histograms(stripes().transpose(0, 2, 1)).reshape(CELLS, CELLS, ORIENTATIONS)
    assert (across[:, :, 0] > 0).all() and not across[:, :, 1:].any()
    assert (down.argmax(2) == ORIENTATIONS // 2).all()


def test_contrast_hardly_changes_gradient_histograms():
    pixels = np.random.default_rng(0).integers(0, 120, (3, SIDE, SIDE), dtype=np.uint8)
    np.testing.assert_allclose(gradient_histograms(pixels), gradient_histograms(pixels * 2), atol=1e-2)


def test_colour_histogram_is_that_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    expected, _ = np.histogramdd(pixels.reshape(3, -1).T, bins=LEVELS, range=[(0, 256)] * 3)
    np.testing.assert_allclose(colour_histogram(pixels) ** 2, expected.ravel() / expected.sum())


def test_a_picture_of_one_colour_has_finite_features():
    found = picture_histograms(np.zeros((3, SIDE, SIDE), dtype=np.uint8))
    assert np.isfinite(found).all()
    assert found.shape == (CELLS**2 * ORIENTATIONS + LEVELS**3 + 24,)
