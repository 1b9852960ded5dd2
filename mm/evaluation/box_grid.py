"""A grid of tested images with their predicted and their true boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mm.data_source import DataSource
from mm.extras import require
from mm.predictions import Decoding
from mm.tasks.answers import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

NUM_IMAGES = 8
NUM_PAIRS = 2  # images per line of the grid; each image is drawn twice
LONGEST_SIDE = 480  # pixels of an image in the grid
NUM_FALLBACK_BOXES = 10  # boxes below the threshold that are drawn if no box of any image reaches it
NUM_COLOURS = 10  # of matplotlib's "tab10"


class BoxImage(NamedTuple):
    """A tested image.

    Attributes:
        id: ID of its row.
        image: The image after the rotation by EXIF, in RGB.
        predicted: Predicted boxes, each {"label", "box", "score"}, with the box in pixels of the image.
        low_confidence: Predicted boxes below the threshold of the head, sorted by descending score.
        true: True boxes, each {"label", "box"}.
    """

    id: str
    image: "Image"
    predicted: Sequence[Mapping[str, Any]]
    low_confidence: Sequence[Mapping[str, Any]]
    true: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class BoxGrid:
    """A function that draws some tested images with the boxes of one head.

    Args:
        name: Name of the head.
        decoding: Its decoding settings.
        data: The data of the rows.
        rows: Indices of the rows.
        decoded: The predictions.
    """

    name: str
    decoding: Decoding
    data: DataSource
    rows: Sequence[int]
    decoded: Answers

    def images(self) -> list[BoxImage]:
        """Read the images, their predictions and their true boxes."""
        from mm.transforms.vision.pixels import open_image

        raw = self.data.inputs[self.decoding.tokens_of()]
        columns = [f"{self.name}/prediction", f"{self.name}/low_confidence"]
        answers = [
            [row.get(column) for column in columns]
            for _, table in self.decoded.tables(self.rows)
            for row in table.to_pylist()
        ]
        return [
            BoxImage(
                id=str(self.data.ids[row]),
                image=open_image(raw[row]).convert("RGB"),
                predicted=predicted,
                low_confidence=low_confidence or [],
                true=self.data.truth(self.name, row) or [],
            )
            for row, (predicted, low_confidence) in zip(self.rows, answers)
            if predicted is not None  # the row was not tested
        ]

    def __call__(self) -> "Figure":
        """Draw the grid."""
        return draw_boxes(self.images(), self.decoding.classes, self.decoding.threshold)


def find_box_grids(
    decodings: Mapping[str, Decoding], data: DataSource, decoded: Answers, rows: Sequence[int]
) -> dict[str, BoxGrid]:
    """Return a grid of the first labelled test images for each head that predicts boxes.

    Args:
        decodings: Head name to its decoding settings, with the threshold of its calibration.
        data: The data of the rows.
        decoded: The predictions of the rows.
        rows: Indices of the tested rows.

    Returns:
        Name of the figure, `test/boxes`, or `test/HEAD/boxes` for several heads, to the grid.
    """
    grids: dict[str, BoxGrid] = {}
    for name, decoding in decodings.items():
        about = data.spec.targets.get(name)
        if about is None or about.kind != "boxes" or decoding.input not in data.inputs:
            continue
        chosen = first_images(name, decoding.tokens_of(), data, rows)
        if chosen:
            grids["test/boxes" if len(decodings) == 1 else f"test/{name}/boxes"] = BoxGrid(
                name, decoding, data, chosen, decoded
            )
    return grids


def first_images(name: str, input_name: str, data: DataSource, rows: Sequence[int]) -> list[int]:
    """Return the first rows that have a target, an image, and no error.

    Args:
        name: Name of the target.
        input_name: Name of the image input.
        data: The data.
        rows: Indices of the tested rows.
    """
    faulty = {row for row, _ in data.faults}
    chosen: list[int] = []
    for row in rows:
        present = data.inputs[input_name][row] is not None and row not in faulty
        if len(chosen) < NUM_IMAGES and present and data.truth(name, row) is not None:
            chosen.append(row)
    return chosen


def draw_boxes(images: Sequence[BoxImage], classes: Sequence[str], threshold: float) -> "Figure":
    """Draw every image twice, side by side: with its true boxes, and with its predicted boxes and their scores.

    The colour of a box is that of its class. If no box of any image reaches the threshold, the best boxes below it are
    drawn as dashed lines.

    Args:
        images: The images.
        classes: Names of the classes.
        threshold: Minimum score of a predicted box.

    Raises:
        ValueError: If there is no image.
    """
    if not images:
        raise ValueError("no image was tested, so that there are no boxes to draw")
    Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and rarely needed

    columns = 2 * min(NUM_PAIRS, len(images))
    lines = -(-2 * len(images) // columns)
    ratio = max(one.image.height / one.image.width for one in images)
    size = (3.4 * columns, (3.4 * min(ratio, 2) + 0.35) * lines + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    empty = not any(one.predicted for one in images)
    for place, one in enumerate(images):
        left, right = (figure.add_subplot(lines, columns, 2 * place + 1 + side) for side in (0, 1))
        draw_image(left, one, one.true, classes, f"{one.id[-32:]}: {len(one.true)} true")
        drawn = one.low_confidence[:NUM_FALLBACK_BOXES] if empty else one.predicted
        title = f"{len(one.predicted)} predicted{'; dashed: the best below the threshold' if empty and drawn else ''}"
        draw_image(right, one, drawn, classes, title, "--" if empty else "-")
    title = "No predicted box of these images reaches" if empty else "True boxes, and predicted boxes that reach"
    figure.suptitle(f"{title} the score threshold {threshold:.3g}", fontsize=10)
    add_legend(figure, images, classes)
    return figure


def draw_image(
    axes: "Axes",
    one: BoxImage,
    boxes: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    title: str,
    style: str = "-",
) -> None:
    """Draw one image with some of its boxes, and their scores if they have any.

    Args:
        axes: The axes of the image.
        one: The image.
        boxes: The boxes.
        classes: Names of the classes.
        title: Text above the image.
        style: Line style of the boxes.
    """
    Rectangle = require("matplotlib.patches", "plot").Rectangle

    small = one.image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    axes.imshow(small, extent=(0, one.image.width, one.image.height, 0))
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    for box in boxes:
        x0, y0, x1, y1 = box["box"]
        colour = class_colour(box["label"], classes)
        corner = (x0, y0)
        axes.add_patch(
            Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=style, linewidth=1.6)
        )
        if "score" in box:
            plate = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
            score = f"{box['score']:.2f}"
            axes.text(x0, y0, score, color="white", fontsize=6, va="top", clip_on=True, bbox=plate)
    axes.set_xlim(0, one.image.width)
    axes.set_ylim(one.image.height, 0)


def class_colour(label: str, classes: Sequence[str]) -> str:
    """Return the colour of a class, as a name of matplotlib. Colours repeat if there are many classes."""
    return f"C{list(classes).index(label) % NUM_COLOURS}"


def add_legend(figure: "Figure", images: Sequence[BoxImage], classes: Sequence[str]) -> None:
    """Add the colours of the classes that occur in the images below the grid."""
    lines = require("matplotlib.lines", "plot")

    present = {
        box["label"] for one in images for boxes in (one.predicted, one.low_confidence, one.true) for box in boxes
    }
    shown = [name for name in classes if name in present]
    handles = [lines.Line2D([], [], color=class_colour(name, classes), label=name[:24]) for name in shown]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=8)
