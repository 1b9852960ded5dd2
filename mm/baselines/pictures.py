"""Features of pictures: histograms of gradients (HOG, Dalal and Triggs 2005) and of colours."""

import numpy as np

SIDE = 64  # pixels to which pictures are resized
CELLS = 8  # cells to each side
ORIENTATIONS = 9  # bins of half a turn
LEVELS = 4  # bins of each colour channel
SHARE = 1 / 255


def picture_histograms(pixels: np.ndarray) -> np.ndarray:
    """Return the features of a picture.

    Args:
        pixels: Red, green and blue, (3, SIDE, SIDE) uint8.

    Returns:
        Gradient histograms, the joint histogram of the colours, and the mean and standard deviation of each channel in
        each quarter, (CELLS**2 * ORIENTATIONS + LEVELS**3 + 24,) float32.
    """
    quarters = (pixels * np.float32(SHARE)).reshape(3, 2, SIDE // 2, 2, SIDE // 2)
    moments = [quarters.mean((2, 4)).ravel(), quarters.std((2, 4)).ravel()]
    return np.concatenate([gradient_histograms(pixels), colour_histogram(pixels), *moments]).astype(np.float32)


def gradient_histograms(pixels: np.ndarray) -> np.ndarray:
    """Return the histogram of gradient orientations of each cell, (CELLS * CELLS * ORIENTATIONS,).

    The gradient at a pixel is that of the channel in which it is the largest. A histogram is divided by the norm of
    those of its cell and its neighbours, so that the contrast does not count, and its square root is taken.

    Args:
        pixels: (3, SIDE, SIDE) uint8.
    """
    values = pixels.astype(np.float32) * np.float32(SHARE)
    dy, dx = np.gradient(values, axis=(1, 2))
    size = np.hypot(dx, dy)  # (3, SIDE, SIDE)
    channel = size.argmax(0)[None]
    size, dx, dy = (np.take_along_axis(x, channel, 0)[0] for x in (size, dx, dy))
    place = np.arctan2(dy, dx) % np.pi / np.pi * ORIENTATIONS
    lower = np.floor(place).astype(int)
    part = place - lower
    cell = np.arange(SIDE) * CELLS // SIDE
    first = (cell[:, None] * CELLS + cell) * ORIENTATIONS  # (SIDE, SIDE)
    count = CELLS * CELLS * ORIENTATIONS
    bins = np.bincount((first + lower % ORIENTATIONS).ravel(), (size * (1 - part)).ravel(), count)
    bins += np.bincount((first + (lower + 1) % ORIENTATIONS).ravel(), (size * part).ravel(), count)
    cells = bins.reshape(CELLS, CELLS, ORIENTATIONS)
    energy = np.pad(np.square(cells).sum(2), 1, mode="edge")
    around = sum(energy[y : y + CELLS, x : x + CELLS] for y in range(3) for x in range(3))
    return np.sqrt(cells / np.sqrt(around + 1e-2)[:, :, None]).ravel()


def colour_histogram(pixels: np.ndarray) -> np.ndarray:
    """Return the square roots of the frequencies of LEVELS**3 colours, (LEVELS**3,).

    Args:
        pixels: (3, H, W) uint8.
    """
    red, green, blue = pixels.reshape(3, -1).astype(np.int64) * LEVELS // 256
    counts = np.bincount((red * LEVELS + green) * LEVELS + blue, minlength=LEVELS**3)
    return np.sqrt(counts / counts.sum())
