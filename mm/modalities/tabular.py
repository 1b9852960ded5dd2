"""The tabular modality, whose inputs consist of columns of numbers, categories or lists of categories."""

import json
from typing import Any

import torch
from torch import Tensor

from mm.modalities.base import Modality
from mm.types import InputData, InputSpec, Transform


class Tabular(Modality):
    """Mappings from column to cell, converted to tokens (T, 3): index of the column, class index and number."""

    name = "tabular"
    of_columns = True

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        from mm.transforms.tabular.row import TabularTransform

        return TabularTransform(**{"columns": data.columns or (), **settings})

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Transform) -> str:
        return json.dumps(raw, ensure_ascii=False, default=str)

    def random_input(self, spec: InputSpec, rows: int = 4) -> tuple[Tensor, Tensor]:
        mask = self.random_mask(spec, rows, 2 * len(spec.cardinalities or ()))
        return self.random_values(spec, rows, mask.shape[1]) * mask.unsqueeze(-1), mask

    def random_values(self, spec: InputSpec, rows: int, longest: int) -> Tensor:
        """Return random tokens (B, T, 3), sorted by column; the first row has at least one token of every column."""
        sizes = torch.tensor(spec.cardinalities)
        column = torch.randint(len(sizes), (rows, longest)).sort(1).values
        column[0] = torch.arange(longest) * len(sizes) // longest
        place = (torch.rand(rows, longest) * sizes[column]).long()
        number = torch.randn(rows, longest) * (sizes[column] == 0)
        return torch.stack([column.float(), place.float(), number], dim=-1)

    def refill(self, spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask.unsqueeze(-1), x, self.random_values(spec, *mask.shape))
