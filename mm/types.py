"""The types that flow between the rooms, and the legend of every shape comment.

B batch   T tokens or time steps   D width   C classes or channels   H, W height, width   L samples of a waveform
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isfunction
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mm._compat.torch import tree_map_only

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from torch.utils.data import DataLoader

    from mm.fingerprints import Fingerprint
    from mm.predictions import Decoding, Prediction

IGNORE = -100  # an unlabelled integer target; an unlabelled float target is NaN
# Of meta: of the row, padded with 0; the rest is of tokens, padded with -1.
ONCE = ("characters", "frame", "size", "sample")
BEGIN, LAST = 1, 2  # the tokens of an answer's ends, in targets of spans; added where they are one, 0 elsewhere


class Offers(type(Protocol)):  # type: ignore[misc]
    """Of protocols that `isinstance` decides on: whoever has such an attribute that is no method does not offer it.

    A part of a user's own may call its data `compare` or `names`: that says nothing about what it can do.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        methods = {name for base in cls.__mro__ for name, value in vars(base).items() if isfunction(value)}
        own = [name for name in methods if not name.startswith("_")]
        return super().__instancecheck__(instance) and all(callable(vars_of(instance, name)) for name in own)


def vars_of(instance: Any, name: str) -> Any:
    """The attribute of an object's class; None where it is the object's own, or there is none."""
    return next((vars(base)[name] for base in type(instance).__mro__ if name in vars(base)), None)


class Features(NamedTuple):
    """What an encoder or a fusion gives, and a fusion or a head takes."""

    tokens: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool, True where the token is real; a row all False: absent
    pooled: Tensor  # (B, D), zeros where absent
    position: Tensor  # (B, T, 2) centre of the token in its input, 0..1: (y, x) of an image, (0, time) of the rest


class Batch(NamedTuple):
    """What a datamodule yields."""

    # input name -> token ids (B, T), pixels (B, C, H, W), a waveform (B, L), cells of a table (B, T, 3) as in
    # mm/transforms/tabular/row.py, or Features computed before
    inputs: dict[str, Tensor | Features]
    masks: dict[str, Tensor]  # input name -> (B, T_in) bool on that input's own time axis; (B, 1) for an image
    targets: dict[str, Tensor]  # target name -> (B, ...); unlabelled: IGNORE in integers, NaN in floats
    row: Tensor  # (B,) int64 row of the source; -1: filler that evens out the processes
    # For decoding, never read by the model: of a text (B, T, 2) "text/places", (B, T) "text/words", and, the same for
    # all windows of a row, (B, L) "text/characters"; of a picture (B, 4) "vision/frame", (B, 2) "vision/size"; see
    # mm/transforms/text/tokens.py and mm/transforms/vision/pixels.py. Where a sample has several windows,
    # (B,) "sample": which of the batch's samples a window is of (a row may be drawn twice), which the loss reads.
    meta: dict[str, Tensor]


class Output(NamedTuple):
    """What the model gives."""

    predictions: dict[str, "Prediction"]  # by head name
    fused: Features
    features: dict[str, Features]  # per input, projected to the model's width


class Merged(NamedTuple):
    """An Output and its Batch, where the windows of a row are one."""

    predictions: dict[str, "Prediction"]
    fused: Features  # of each row's first window
    targets: dict[str, Tensor]  # of the first window; what has a token axis: of all, side by side, and so in meta
    meta: dict[str, Tensor]
    row: Tensor  # (R,) as in Batch
    first: Tensor  # (R,) index of each row's first window


class Embedded(NamedTuple):
    """Unit vectors of a batch's N inputs, or towers of inputs, as contrastive losses compare them."""

    vectors: Tensor  # (B, N, D), zeros where absent
    present: Tensor  # (B, N) bool
    row: Tensor  # (B,) as in Batch; rows of one number are one item
    label: Tensor  # (B,) int64; IGNORE: none is known
    log_q: Tensor  # (B,) logarithm of the label's part of the training rows; 0 where nothing asks for it


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What an encoder must be fed. None: whatever the data has."""

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
    """What the data says of one column of a tabular input."""

    name: str
    kind: str | None = None  # number, category or list (of categories); None: not found yet
    separator: str | None = None  # of a list's elements in a text; None: the cells are lists
    mean: float = 0.0  # of the training rows' numbers, as is std
    std: float = 1.0
    classes: tuple[str, ...] = ()  # of the training rows; the first has index 1, 0 is any other


@dataclass(frozen=True, kw_only=True)
class InputData:
    """What the data says of one of its inputs."""

    modality: str
    size: tuple[int, int] | None = None  # vision
    channels: int | None = None  # vision
    max_value: int | None = None  # vision: of pictures of 16 bits a pixel, the largest value of the bits in use
    sample_rate: int | None = None  # audio, Hz
    columns: tuple[ColumnData, ...] | None = None  # tabular
    cardinalities: tuple[int, ...] | None = (
        None  # tabular: how many classes each has, any other's included; 0 of a number
    )


@dataclass(frozen=True, kw_only=True)
class TargetData:
    """What the data says of one of its targets."""

    kind: str  # of the TargetCodec that has read it, such as "class"
    classes: tuple[str, ...] = ()  # where there are any: the label map
    facts: dict[str, Any] = field(default_factory=dict)  # plain data, by the names of the head's arguments


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a datamodule knows before a model exists."""

    inputs: dict[str, InputData]
    targets: dict[str, TargetData]


class EncodedInput(NamedTuple):
    """One raw input, read."""

    windows: list[Any]  # tensors, or Features of one row (T, D); nearly always exactly one
    cut: bool  # True where it was too long and a part was left out
    meta: Sequence[dict[str, Tensor]] = ()  # of each window what decoding needs, as in Transform.meta
    unknown: bool = False  # True where it names what the training rows do not have, and is read as "other"
    taken: bool = False  # True where the row has it, but it was taken away: without it the row still counts
    notes: tuple[str, ...] = ()  # what else of it was changed or left out, such as "mixed_down": data/mixed_down/audio


class Transform(Protocol):
    """Raw input -> tensors, one object for training, evaluation and serving."""

    meta: dict[str, Tensor]  # and for what decoding needs of it; usually nothing
    multiple: int  # batches are padded to whole ones of it: few different shapes, for what is compiled
    random: bool  # whether training reads a row in another way each time, so that what is made of it can't be kept

    @property
    def filler(self) -> Tensor | Features:
        """Return what stands in for an absent input."""
        ...

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        """`train` turns augmentation on. Errors: ValueError where `raw` can't be read."""
        ...

    def finish(self, x: Tensor) -> Tensor:
        """A batch of what was read, on the device -> what the encoder reads; what is finished already stays."""
        ...

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        """Of each, nothing decoded: tokens of a text, seconds of a sound, 1 of an image; 0 where there is none.

        Of all its windows together, each padded to whole multiples.
        """
        ...


class Vocabulary(NamedTuple):
    """The tokens that a Transform of texts gives."""

    mask: int | None  # stands for a hidden one
    special: Tensor  # (S,) those that are no part of a text
    begins: Tensor  # (V,) bool, those with which a word begins


class EncodedTarget(NamedTuple):
    """A target's column, read."""

    values: Tensor | list[Tensor]  # (N, ...), unlabelled as in Batch; a list where rows have lengths of their own
    data: TargetData
    faults: dict[int, str]  # row, unlabelled -> why its cell could not be read
    # (N,) what a person wrote, None where unlabelled, where `decode` can't tell it from the values
    written: Sequence[Any] | None = None


class TargetCodec(Protocol):
    """Cells of one target's column -> tensors, and back to what a person writes."""

    kind: str

    @property
    def examples(self) -> Sequence[Any]:
        """Cells, as a person writes them."""
        ...

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Cells of any type, of all rows. train: (N,) bool, the rows that may be learnt from; known: to a model."""
        ...

    def strata(self, cell: Any) -> str | list[str] | None:
        """What rows are alike in when they are split: a name, or several; None: no matter."""
        ...

    def decode(self, target: Tensor, data: TargetData) -> Any:
        """One row's target as a person writes it; None where unlabelled."""
        ...


class TargetTruncatedError(ValueError):
    """A row's target lies in a part of its input that was cut off: it can't be learnt, but the row is measured."""


@runtime_checkable
class Aligned(Protocol, metaclass=Offers):
    """A TargetCodec whose targets follow from how an input was read, such as a tag per token."""

    input: str  # whose Transform gives the meta that it needs
    texts: Sequence[str]  # of the input, where it is one, that its examples go with
    # Modality that the input has to be of, and its Transform's argument that makes it tell the meta which `align` and
    # decoding need; None: they need nothing.
    needs: tuple[str, str] | None

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """A row's target -> one for each window.

        Raises:
            TargetTruncatedError: If the input was truncated or is read in windows, and none holds the target.
            ValueError: If the target does not fit the input.
        """
        ...


class DataSource(Protocol):
    """What tasks, callbacks and evaluation see of data: rows of raw inputs and targets, read into batches.

    Every `DataModule` is one. A LightningDataModule of your own is one once it has these members.

    Attributes:
        transforms: Input name to the Transform that reads its raw values.
        stored: Input name to a Transform that takes the row's number and gives features that were computed before.
        faults: (row, column) to what is wrong with the cell, for rows that were not raised.
        notes: (row, what was changed or left out), such as `(3, "cut/text")`; see `EncodedInput`.
    """

    transforms: dict[str, Transform]
    stored: dict[str, Transform]
    faults: dict[tuple[int, str], str]
    notes: set[tuple[int, str]]

    @property
    def spec(self) -> DataSpec:
        """Return what is known of the inputs and targets before a model exists."""
        ...

    @property
    def source(self) -> str:
        """Return the name of the file or data set, as messages state it."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Return the id of every row."""
        ...

    @property
    def splits(self) -> np.ndarray:
        """Return the split of every row: (N,) of str, "" for rows in no split."""
        ...

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Return input name -> raw values by row; None or "" where a row lacks the input."""
        ...

    @property
    def targets(self) -> Mapping[str, Any]:
        """Return target name -> encoded targets: (N, ...), or a list of N tensors; see `EncodedTarget`."""
        ...

    @property
    def fingerprint(self) -> "Fingerprint":
        """Return digests of the rows of each split."""
        ...

    def bind(
        self,
        transforms: Mapping[str, Transform],
        spec: DataSpec | None = None,
        codecs: Mapping[str, TargetCodec] | None = None,
    ) -> Self:
        """Return a copy of this data for one model, whose transforms read the inputs.

        Args:
            transforms: Input name to the Transform of the model.
            spec: What a trained model knows of its inputs and targets; None: the classes are those of this data.
            codecs: Target name to how its cells are read; None: as this data reads them.
        """
        ...

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split, or of all with "all"; raise ValueError where there are none."""
        ...

    def loader(self, split: str, train: bool = False, only: Sequence[str] | None = None) -> "DataLoader[Any]":
        """Return batches of a split, this process's share.

        Args:
            split: train, val, test or all.
            train: Whether rows are shuffled and augmented.
            only: Some of the inputs, as raw values, in batches of similar length.
        """
        ...

    def batch(self, rows: Sequence[int], only: Sequence[str] | None = None) -> Batch:
        """Return some rows as one finished batch, read here and now as validation reads them."""
        ...

    def finish(self, batch: Batch) -> Batch:
        """Return a batch as the encoders read it, on the device where it is."""
        ...

    def lengths(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the length of every row (N,) for some inputs; see `Transform.lengths`."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return a row's target as a person writes it; None where it is unlabelled."""
        ...

    def is_labelled(self, name: str, row: int) -> bool:
        """Return whether a row has a target that could be read."""
        ...

    def row_name(self, row: int) -> str:
        """Return a row's file, number and id, as messages state them."""
        ...

    def column_of(self, name: str, row: int) -> str:
        """Return the column of an input or a target, as messages and `faults` name it."""
        ...

    def input_digests(self, name: str) -> Iterator[bytes]:
        """Yield what distinguishes the raw values of an input from those of other data, row after row."""
        ...

    def progress(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the epoch of a checkpoint's state, its batches trained so far, and its batches if it goes on now."""
        ...

    def write_errors(self, path: "Path") -> None:
        """Write every row of `faults` as CSV."""
        ...


def data_source(trainer: "Trainer") -> DataSource:
    """Return the data that a trainer runs on.

    Raises:
        ValueError: If the trainer was given loaders instead of a data module.
    """
    data: DataSource | None = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("trainer: got loaders without a data module, wanted trainer.fit(task, datamodule=data)")
    return data


def check_data_source(data: object) -> None:
    """Check that an object has the members of a `DataSource`.

    Raises:
        ValueError: If it lacks some; the message names them.
    """
    members = [*DataSource.__annotations__, *(name for name in vars(DataSource) if not name.startswith("_"))]
    there = dir(data)
    lacking = [name for name in dict.fromkeys(members) if name not in there]
    if lacking:
        raise ValueError(
            f"data: {type(data).__qualname__} lacks {', '.join(lacking)}; wanted a mm.types.DataSource: derive it from "
            "mm.data.module.DataModule, or add these members"
        )


class Encoder(Protocol):
    """Raw tensors of one input -> Features. Padding and absent rows (mask all False) have no influence."""

    embed_dim: int
    input: InputSpec

    def __call__(self, x: Tensor, mask: Tensor) -> Features: ...


@runtime_checkable
class TokenEncoder(Protocol):
    """An Encoder that looks its tokens up in a table."""

    @property
    def token_embedding(self) -> nn.Embedding: ...


class Fusion(Protocol):
    """Features of each input -> Features, of the same width."""

    def __call__(self, features: dict[str, Features]) -> Features: ...


class Towered:
    """Base class of a Fusion with towers of inputs: its tokens are theirs, none of which another's inputs reach.

    A base class and no protocol: attributes of these names on a fusion of the user's own mean something else.
    """

    towers: Any  # an nn.ModuleDict: name -> what fuses its inputs, in the order of the tokens
    inputs: Mapping[str, Sequence[str]]  # name -> those of each


class Head(Protocol):
    """The fused Features -> prediction of one target; `mm.heads.Head` is its base class."""

    weight: float  # of its loss among those of several heads
    # The input whose tokens it predicts something of, so that each window has a target of its own; None: of the row.
    input: str | None
    per_window: bool  # whether the loss of a head of tokens counts windows

    @property
    def decoding(self) -> "Decoding": ...

    def __call__(self, fused: Features, target: Tensor | None = None) -> "Prediction": ...

    def loss(self, prediction: Any, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum over the labelled rows, and how many they are."""
        ...

    def decode(self, prediction: Any, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Return one dict of plain data per row, whose first key is "prediction"."""
        ...


@runtime_checkable
class Drawn(Protocol, metaclass=Offers):
    """A metric of several numbers that has a picture, such as a confusion matrix."""

    def names(self) -> list[str]:
        """Keys of what it computes."""
        ...

    def figure(self) -> Any:
        """A matplotlib Figure of what has been seen since the last reset."""
        ...


class Identified:
    """Base class of the raw values of an input of all rows that need not be read to tell them from those of other data.

    A base class and no protocol: an attribute of this name on a class of the user's own means something else.
    """

    identity: str


def pick(x: Any, rows: Any) -> Any:
    """Some rows of a Tensor, or of all tensors of a Batch, an Output, Features ..."""
    return tree_map_only(Tensor, lambda part: part[rows], x)


def encoded(cell: Any) -> bytes:
    """What a cell that is no text holds, with its type; different cells of one column give different bytes."""
    if isinstance(cell, np.ndarray | Tensor):
        array = np.ascontiguousarray(cell)
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(cell, Mapping):
        return nested("{", (part for item in cell.items() for part in item))
    if isinstance(cell, list | tuple):
        return nested("[", cell)
    return repr(cell).encode("utf-8", "surrogatepass")


def nested(kind: str, parts: Iterable[Any]) -> bytes:
    """The parts of a cell, each behind its length."""

    def told() -> Iterator[bytes]:
        for part in parts:
            data = encoded(part)
            yield f"{len(data)}:".encode() + data

    return kind.encode() + b"".join(told())


def blank(x: Tensor) -> float:
    """What stands for no label in targets like these."""
    return torch.nan if x.is_floating_point() else IGNORE


def labelled(target: Tensor) -> Tensor:
    """Which rows have any label. (B, ...) -> (B,) bool"""
    return (~target.isnan() if target.is_floating_point() else target != IGNORE).unsqueeze(1).flatten(1).any(1)


def mask_inputs(features: dict[str, Features], keep: Sequence[str]) -> dict[str, Features]:
    """The same features with every input outside `keep` absent."""
    return {name: f if name in keep else absent(f) for name, f in features.items()}


def absent(features: Features) -> Features:
    """The same features with every row absent."""
    return features._replace(mask=torch.zeros_like(features.mask), pooled=torch.zeros_like(features.pooled))
