"""What a modality is: everything that differs between kinds of inputs, in one object each."""

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

ROWS = 4  # rows of a random input, unless another number is asked for


class Sound(NamedTuple):
    """A waveform to be heard."""

    samples: np.ndarray  # (L,) float32 in -1..1
    sample_rate: int  # Hz


class Modality:
    """A kind of input, such as text or vision.

    A new modality is a subclass in one file, registered with `register_modality`. It overrides what differs from the
    defaults here, which are those of a cell that holds a sequence of numbers. Nothing else in `mm` names a modality.

    Attributes:
        name: The name, as in `datamodule.columns.NAME`.
        suffixes: Suffixes of files that hold one input each, in lower case; none: it is not read from files alone.
        in_files: Whether a cell is the path of a file.
        is_sequence: Whether an input has a length, by which rows are batched and padded.
        of_columns: Whether an input is made of several columns, whose contents are learned from the training rows.
        in_pairs: Whether an input may be a pair of cells, such as a question and a passage.
        unit: What training counts of it per second: "tokens" or "seconds"; nothing: it is not counted.
        extra_steps: Steps of padding by which a contract test lengthens an input; no multiple of an encoder's hop.
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
            cells: One per row.
            root: The folder of the table, to which paths are relative.
        """
        if self.in_files:
            from mm.cells import text_of

            return [str(root / text) if (text := text_of(cell)) else None for cell in cells]
        return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]

    def read_file(self, path: Path) -> Any:
        """Return the raw input that one file holds."""
        return str(path)

    def cell_faults(self, raw: Sequence[Any]) -> Iterator[tuple[int, str]]:
        """Yield (row, what is wrong) for raw inputs that are wrong at first sight, without reading files."""
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
        """Return what the raw inputs have in common, and report it.

        Args:
            raw: By row; None: the row lacks the input.
            source: The table, for messages.
            trained: Whether the rows are for a trained model, which knows; nothing is reported, and nothing missed.
            column: The column, for messages.
            stats: Of modalities in files, their sizes in bytes in the first column (N, 3), negative where there is no
                file; None: all are there.
            root: The folder that paths are relative to, for messages; default: that of the table.

        Raises:
            ValueError: If nothing can be read, and the model is not trained.
        """
        return InputData(modality=self.name)

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        """Return the Transform of an input: the encoder's needs win, the data fills the rest, settings the others.

        Args:
            data: What the data knows of the input.
            need: What an encoder needs; None: what the default encoder of the modality does.
            **settings: Further arguments of the Transform, such as `augment`.
        """
        raise NotImplementedError(f"the modality {self.name} has no transform of its own")

    def filled(self, data: InputData, need: InputSpec | None, *names: str) -> dict[str, Any]:
        """Return arguments of a Transform by name: those that the encoder needs, else those of the data."""
        needs = {} if need is None else asdict(need)
        has = asdict(replace(data, columns=None))
        return {name: needs[name] if needs.get(name) is not None else has.get(name) for name in names}

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Transform) -> "str | Image | Sound | None":
        """Return what a person is shown of an input.

        Args:
            raw: As in the data.
            x: As the encoder reads it: one row of a batch.
            mask: Its mask (T,).
            transform: What has read it.
        """
        return str(raw)

    def to_bytes(self, raw: Any) -> tuple[bytes, float]:
        """Return the bytes that a shard keeps of a raw input, and its seconds (0 where it has none), once checked.

        Raises:
            ValueError: If it can't be read, or shards can't hold this modality.
        """
        raise ValueError(f"is {self.name}, which shards can't hold")

    @property
    def in_shards(self) -> bool:
        """Return whether shards can hold the modality."""
        return type(self).to_bytes is not Modality.to_bytes

    def random_input(self, spec: InputSpec, rows: int = ROWS) -> tuple[Tensor, Tensor]:
        """Return a random batch that an encoder reads, the first row at full length.

        Args:
            spec: What the encoder needs.
            rows: B.

        Returns:
            x (B, T, ...) and its mask (B, T), with room for `extra_steps` below `max_length`.
        """
        mask = self.random_mask(spec, rows, 12)
        return self.random_values(spec, rows, mask.shape[1]) * mask, mask

    def random_mask(self, spec: InputSpec, rows: int, longest: int) -> Tensor:
        """Return a mask (B, T) of rows of random lengths up to `longest`, or less where the encoder reads less."""
        if spec.max_length is not None:
            longest = min(longest, spec.max_length - self.extra_steps)
        length = torch.randint(max(1, longest // 2), longest + 1, (rows,))
        length[0] = longest
        return torch.arange(longest) < length.unsqueeze(1)

    def random_values(self, spec: InputSpec, rows: int, longest: int) -> Tensor:
        """Return random raw values (B, T, ...)."""
        return torch.randn(rows, longest) * 0.1

    def refill(self, spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
        """Return `x` with other values where masked."""
        other = torch.randn_like(x) * 0.1 if x.is_floating_point() else torch.randint_like(x, 1, 257)
        return torch.where(mask, x, other)

    def lengthen(self, x: Tensor) -> Tensor:
        """Return a sequence (B, T) or (B, T, k) with `extra_steps` more, of zeros."""
        return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, self.extra_steps))


def with_markers(x: Tensor, markers: Mapping[str, int] | None) -> Tensor:
    """Return token ids (B, T) that begin with the ids of some markers."""
    for place, marker in enumerate((markers or {}).values()):
        x[:, place] = marker
    return x
