"""The types that data, encoders, fusions and heads exchange, and the letters of all shapes.

B batch, T tokens or time steps, D width, C classes or channels, H and W height and width, L samples of a waveform, N
rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from mm.predictions import Decoding, Prediction

IGNORE = -100  # value of an unlabelled integer target; that of a float target is NaN


class Features(NamedTuple):
    """The output of an encoder or a fusion, and the input of a fusion or a head."""

    tokens: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool, True where the token is real; a row all False: absent
    pooled: Tensor  # (B, D), zeros where absent
    position: Tensor  # (B, T, 2) centre of the token in its input, 0..1: (y, x) of an image, (0, time) of the rest


class Batch(NamedTuple):
    """One batch of rows, as data modules yield it."""

    # input name to token ids (B, T), pixels (B, C, H, W), a waveform (B, L), cells of a table (B, T, 3) as in
    # mm/transforms/tabular/row.py, or precomputed Features
    inputs: dict[str, Tensor | Features]
    masks: dict[str, Tensor]  # input name to mask, (B, T_in) bool, over the T_in steps of the input; (B, 1): an image
    targets: dict[str, Tensor]  # target name to (B, ...); an unlabelled integer is IGNORE, an unlabelled float NaN
    row: Tensor  # (B,) int64 index of the row in the table; -1: only evens out the batches of several processes
    # For decoding, not used by the model: of a text (B, T, 2) "text/places", (B, T) "text/words", and, the same for
    # all windows of a row, (B, L) "text/characters"; of a picture (B, 4) "vision/frame", (B, 2) "vision/size"; see
    # mm/transforms/text/tokens.py and mm/transforms/vision/pixels.py. If a sample has several windows,
    # (B,) "sample": index of the window's sample in the batch (a row may be drawn twice), which the loss uses.
    meta: dict[str, Tensor]


class Output(NamedTuple):
    """The output of a model."""

    predictions: dict[str, "Prediction"]  # by head name
    fused: Features
    features: dict[str, Features]  # per input, projected to the model's width


class Embedded(NamedTuple):
    """Embeddings of a batch for contrastive losses: one unit vector per row for each of N inputs or towers.

    A tower is a group of inputs that are fused into one vector.
    """

    vectors: Tensor  # (B, N, D), zeros where absent
    present: Tensor  # (B, N) bool
    row: Tensor  # (B,) as in Batch; entries with the same index are one item
    label: Tensor  # (B,) int64 class index; IGNORE: unlabelled
    log_q: Tensor  # (B,) logarithm of the fraction of training rows with this label; 0 if the loss does not use it


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Requirements of an encoder on its input. None: the value of the data is used."""

    modality: str
    tokenizer: str | None = None  # text: "bytes", or a folder or hub name that holds a tokenizer
    marker_tokens: dict[str, int] | None = None  # text: strings that are a token each, in every text, and their ids
    max_length: int | None = None  # text: tokens; audio: samples; longer input is handled by `overflow`
    size: tuple[int, int] | None = None  # vision: height, width in pixels
    channels: int | None = None  # vision
    mean: tuple[float, ...] | None = None  # vision, per channel, of pixels in 0..1
    std: tuple[float, ...] | None = None
    sample_rate: int | None = None  # audio, Hz
    cardinalities: tuple[int, ...] | None = None  # tabular: as in InputData


@dataclass(frozen=True, kw_only=True)
class ColumnData:
    """Facts about one column of a tabular input."""

    name: str
    kind: str | None = None  # number, category or list (of categories); None: not determined yet
    separator: str | None = None  # separator of list elements in a text; None: the cells are lists
    mean: float = 0.0  # mean of the numbers of training rows
    std: float = 1.0
    classes: tuple[str, ...] = ()  # classes of the training rows, from index 1; index 0 is any other class


@dataclass(frozen=True, kw_only=True)
class InputData:
    """Facts about one input of the data."""

    modality: str
    size: tuple[int, int] | None = None  # vision
    channels: int | None = None  # vision
    max_value: int | None = None  # vision: largest value of the bits in use, for images of 16 bits per pixel
    sample_rate: int | None = None  # audio, Hz
    columns: tuple[ColumnData, ...] | None = None  # tabular
    cardinalities: tuple[int, ...] | None = (
        None  # tabular: how many classes each has, any other's included; 0 of a number
    )


@dataclass(frozen=True, kw_only=True)
class TargetData:
    """Facts about one target of the data."""

    kind: str  # kind of the TargetCodec that encoded it, such as "class"
    classes: tuple[str, ...] = ()  # names of the classes by index, if the target has classes
    facts: dict[str, Any] = field(default_factory=dict)  # values of arguments of the head, by argument name


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Facts about the inputs and targets of the data, from which a model can be built."""

    inputs: dict[str, InputData]
    targets: dict[str, TargetData]


class EncodedInput(NamedTuple):
    """One raw input, encoded as tensors."""

    windows: list[Any]  # tensors, or Features of one row (T, D); nearly always exactly one
    cut: bool  # whether the input was too long and was truncated
    meta: Sequence[dict[str, Tensor]] = ()  # for each window the tensors that decoding needs, as in Transform.meta
    unknown: bool = False  # whether it has a category that no training row has, which is encoded as "other"
    taken: bool = False  # whether the row has this input, but a corruption removed it: without it the row still counts
    notes: tuple[str, ...] = ()  # other changes, such as "mixed_down", which data/mixed_down/audio counts


class Transform(Protocol):
    """Encodes raw inputs as tensors, in the same way in training, evaluation and deployment."""

    meta: dict[str, Tensor]  # padding values of the tensors that decoding needs; usually empty
    multiple: int  # lengths are padded to multiples of it, so that compiled models see few different shapes
    random: bool  # whether training rows are augmented, so that features of them can't be stored

    @property
    def filler(self) -> Tensor | Features:
        """Return the dummy tensor for an absent input."""
        ...

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        """Encode one raw input.

        Args:
            raw: The raw input.
            train: Whether to augment it.

        Raises:
            ValueError: If the input can't be read.
        """
        ...

    def finish(self, x: Tensor) -> Tensor:
        """Convert a batch of encoded inputs, on its device, to the form that the encoder expects.

        A batch that is already converted stays unchanged.
        """
        ...

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        """Return the length of each raw input without decoding it: tokens, seconds, or 1 for an image; 0 if absent.

        The length is that of all windows together, each padded to a multiple of `multiple`.
        """
        ...


class EncodedTarget(NamedTuple):
    """The column of a target, encoded as tensors."""

    values: Tensor | list[Tensor]  # (N, ...), unlabelled as in Batch; a list if rows have different lengths
    data: TargetData
    faults: dict[int, str]  # row to the error of its cell; such rows are unlabelled
    # (N,) the original cells, None if unlabelled; set if `decode` can't restore them
    written: Sequence[Any] | None = None


class TargetCodec(Protocol):
    """Encodes the cells of a target's column as tensors, and decodes tensors into readable values."""

    kind: str

    @property
    def examples(self) -> Sequence[Any]:
        """Return example cells, as a user writes them."""
        ...

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows, and determine classes and statistics from the training rows.

        Args:
            cells: Cells of any type, (N,).
            train: Whether each row is a training row, (N,) bool.
            known: Classes and statistics of a trained model, which are used instead of those of the training rows.

        Returns:
            The encoded column.
        """
        ...

    def strata(self, cell: Any) -> str | list[str] | None:
        """Return the stratum or the strata of a cell for a stratified split; None: the split is not stratified."""
        ...

    def decode(self, target: Tensor, data: TargetData) -> Any:
        """Decode the target of one row into a readable value; None if it is unlabelled."""
        ...


class Encoder(Protocol):
    """Maps tensors of one input to Features. Padding and absent rows (mask all False) must not influence the result."""

    embed_dim: int
    input: InputSpec

    def __call__(self, x: Tensor, mask: Tensor) -> Features: ...


class Fusion(Protocol):
    """Maps the Features of each input to Features of the same width."""

    def __call__(self, features: dict[str, Features]) -> Features: ...


class Towered:
    """Base class of a Fusion of several towers, each of which fuses some inputs and does not read the others.

    It is a base class rather than a protocol, because a user's fusion may have other attributes of these names.
    """

    towers: Any  # an nn.ModuleDict: name to the fusion of the tower's inputs, in the order of the tokens
    inputs: Mapping[str, Sequence[str]]  # name to the inputs of the tower


class Head(Protocol):
    """Maps fused Features to the prediction of one target; `mm.heads.Head` is its base class."""

    weight: float  # weight of its loss in the sum over all heads
    # Input for whose tokens the head predicts, so that each window has its own target; None: it predicts per row.
    input: str | None
    per_window: bool  # whether the loss of a head of tokens counts windows

    @property
    def decoding(self) -> "Decoding": ...

    def __call__(self, fused: Features, target: Tensor | None = None) -> "Prediction": ...

    def loss(self, prediction: Any, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the loss, and the number of units that were summed; see `mm.heads.Head.loss`."""
        ...

    def decode(self, prediction: Any, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Return one dictionary of plain data per row, whose first key is "prediction"."""
        ...
