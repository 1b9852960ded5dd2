"""The text modality, whose cells are strings or pairs of strings."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.cells import text_fault
from mm.modalities.base import Modality, with_markers
from mm.text_column import TextColumn
from mm.types import InputData, InputSpec, Transform

MAX_LENGTH = 512  # maximum number of tokens of the default encoder


class Text(Modality):
    """Strings or pairs of strings, converted to token ids."""

    name = "text"
    suffixes = (".txt", ".md")
    in_pairs = True
    unit = "tokens"
    extra_steps = 7

    def read_cells(self, cells: Sequence[Any], root: Path) -> Sequence[Any]:
        if isinstance(cells, TextColumn):
            return cells.copy()
        return ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]

    def read_file(self, path: Path) -> str:
        return path.read_text("utf-8-sig", "surrogateescape")

    def cell_faults(self, raw: Sequence[Any]) -> Iterator[tuple[int, str]]:
        """Yield (row, error message) for cells with invalid text.

        These are numbers, bytes, and strings that are not valid UTF-8 or contain NUL characters. Columns in Arrow
        memory are skipped, because Arrow has already checked them.
        """
        if isinstance(raw, TextColumn):
            return
        for row, cell in enumerate(raw):
            for text in cell if isinstance(cell, list) else (cell,):
                wrong = text_fault(text) if isinstance(text, str) else None
                if isinstance(text, int | float | bytes):
                    wrong = f"got {type(text).__name__}, wanted a text"
                if wrong is not None:
                    yield row, wrong

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        from mm.transforms.text.tokens import TextTransform

        usual = InputSpec(modality=self.name, tokenizer="bytes", max_length=MAX_LENGTH)
        return TextTransform(**self.filled(data, need or usual, "tokenizer", "marker_tokens", "max_length") | settings)

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Transform) -> str:
        return raw if isinstance(raw, str) else ", ".join(raw)

    def to_bytes(self, raw: Any) -> tuple[bytes, float]:
        from mm.transforms.text.tokens import TextTransform

        if isinstance(raw, list | tuple):
            raise ValueError(
                "it is a pair of texts, which can't be written to shards; name one column, or two inputs with "
                "columns.inputs"
            )
        TextTransform("bytes")(raw)
        return raw.encode(), 0.0

    def random_input(self, spec: InputSpec, rows: int = 4) -> tuple[Tensor, Tensor]:
        mask = self.random_mask(spec, rows, 12)
        return with_markers(torch.randint(1, 257, tuple(mask.shape)), spec.marker_tokens) * mask, mask
