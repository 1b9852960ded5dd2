"""Base class of modalities, which contain all code that differs between kinds of inputs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.types import InputData, InputSpec, Transform

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS = 4  # default number of rows of a random input


class Sound(NamedTuple):
    """A waveform for playback in a logger or report."""

    samples: np.ndarray  # (L,) float32 in -1..1
    sample_rate: int  # Hz


class Modality:
    """A kind of input, such as text or vision.

    A new modality is a subclass in a file of its own, registered with `register_modality`. It overrides the methods for
    which the defaults here do not fit; these are made for cells that contain a sequence of numbers. No other code in
    `mm` refers to a specific modality.

    Attributes:
        name: Name of the modality, as in `datamodule.columns.NAME`.
        suffixes: Suffixes of files that contain one input each, in lower case; empty: inputs can't be read from files
            without a table.
        in_files: Whether a cell is the path of a file.
        is_sequence: Whether inputs have a length, by which rows are batched and padded.
        of_columns: Whether an input consists of several columns, whose classes and statistics are taken from the
            training rows.
        in_pairs: Whether an input may be a pair of cells, such as a question and a passage.
        unit: Unit of the training throughput per second, "tokens" or "seconds"; empty: throughput is not reported.
        extra_steps: Number of padding steps by which a contract test lengthens an input. It must not be a multiple of
            the hop length of an encoder.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    in_files: bool = False
    is_sequence: bool = True
    of_columns: bool = False
    in_pairs: bool = False
    unit: str = ""
    extra_steps: int = 3

    def read_cells(self, cells: Sequence[Any], root: Path) -> Sequence[Any]:
        """Return the raw input of each row from the cells of its column.

        Args:
            cells: Cells of the column, one per row.
            root: Folder of the table, to which paths are relative.
        """
        if self.in_files:
            from mm.cells import text_of

            return [str(root / text) if (text := text_of(cell)) else None for cell in cells]
        return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]

    def read_file(self, path: Path) -> Any:
        """Return the raw input in a file."""
        return str(path)

    def cell_faults(self, raw: Sequence[Any]) -> Iterator[tuple[int, str]]:
        """Yield (row, error message) for raw inputs that are invalid, without reading files."""
        yield from ()

    def probe(
        self,
        raw: Sequence[Any],
        source: Path,
        trained: bool,
        column: str = "",
        stats: np.ndarray | None = None,
        root: Path | None = None,
    ) -> InputData:
        """Return the common properties of the raw inputs, such as their size, and report them to the user.

        Args:
            raw: Raw input of each row; None: the input is absent.
            source: Path of the table, for messages.
            trained: Whether the rows are for a trained model, whose properties are already known. Nothing is then
                reported, and unknown properties are not an error.
            column: Name of the column, for messages.
            stats: Array (N, 3) with the file size of each row in bytes in its first column, negative if the file does
                not exist. It is used by modalities in files; None: all files exist.
            root: Folder to which paths are relative, for messages; None: the folder of the table.

        Raises:
            ValueError: If no input can be read and `trained` is False.
        """
        return InputData(modality=self.name)

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        """Return the transform of an input.

        Its arguments are taken from the requirements of the encoder or else from the properties of the data; `settings`
        override both.

        Args:
            data: Properties of the input in the data.
            need: Requirements of the encoder; None: those of the default encoder of the modality.
            **settings: Further arguments of the transform, such as `augment`.
        """
        raise NotImplementedError(f"the modality {self.name} has no transform of its own")

    def filled(self, data: InputData, need: InputSpec | None, *names: str) -> dict[str, Any]:
        """Return arguments of a transform, each taken from the requirements of the encoder or else from the data.

        Args:
            data: Properties of the input in the data.
            need: Requirements of the encoder; None: there are no requirements.
            *names: Names of the arguments.
        """
        needs = {} if need is None else asdict(need)
        has = asdict(replace(data, columns=None))
        return {name: needs[name] if needs.get(name) is not None else has.get(name) for name in names}

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Transform) -> "str | Image | Sound | None":
        """Return a preview of one raw input for display to the user.

        Args:
            raw: The raw input, as it is stored in the data.
            x: The transformed input, as the encoder receives it, without the batch dimension.
            mask: Mask of `x`, (T,) bool, False for padding.
            transform: The transform that converted `raw` into `x`.

        Returns:
            A text, an image or a waveform; None if there is no preview.
        """
        return str(raw)

    def to_bytes(self, raw: Any) -> tuple[bytes, float]:
        """Check a raw input and return the bytes with which it is stored in shards, and its duration.

        Returns:
            The bytes, and the duration in seconds, which is 0 for inputs without duration.

        Raises:
            ValueError: If the input can't be read, or if this modality can't be stored in shards.
        """
        raise ValueError(
            f"its modality, {self.name}, can't be written to shards; leave the input out, or train on the table itself"
        )

    @property
    def in_shards(self) -> bool:
        """Return whether inputs of the modality can be stored in shards."""
        return type(self).to_bytes is not Modality.to_bytes

    def random_input(self, spec: InputSpec, rows: int = ROWS) -> tuple[Tensor, Tensor]:
        """Return a random batch for an encoder, whose first row has the full length.

        Args:
            spec: Requirements of the encoder.
            rows: Number of rows B.

        Returns:
            x (B, T, ...) and its mask (B, T). T is at most `max_length - extra_steps`.
        """
        mask = self.random_mask(spec, rows, 12)
        return self.random_values(spec, rows, mask.shape[1]) * mask, mask

    def random_mask(self, spec: InputSpec, rows: int, longest: int) -> Tensor:
        """Return a mask (B, T) of rows with random lengths, the first of which has length T.

        Args:
            spec: Requirements of the encoder.
            rows: Number of rows B.
            longest: T, which is reduced to `max_length - extra_steps` if the encoder supports less.
        """
        if spec.max_length is not None:
            longest = min(longest, spec.max_length - self.extra_steps)
        length = torch.randint(max(1, longest // 2), longest + 1, (rows,))
        length[0] = longest
        return torch.arange(longest) < length.unsqueeze(1)

    def random_values(self, spec: InputSpec, rows: int, longest: int) -> Tensor:
        """Return random values (B, T, ...), without a mask."""
        return torch.randn(rows, longest) * 0.1

    def refill(self, spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
        """Return `x` with new random values at the masked positions, which are padding."""
        other = torch.randn_like(x) * 0.1 if x.is_floating_point() else torch.randint_like(x, 1, 257)
        return torch.where(mask, x, other)

    def lengthen(self, x: Tensor) -> Tensor:
        """Return a sequence (B, T) or (B, T, k) with `extra_steps` zeros appended along T."""
        return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, self.extra_steps))


def with_markers(x: Tensor, markers: Mapping[str, int] | None) -> Tensor:
    """Write the ids of marker tokens to the first positions of token ids (B, T), in place, and return these."""
    for place, marker in enumerate((markers or {}).values()):
        x[:, place] = marker
    return x
