"""Reports: the return type of every public function that evaluates something."""

import csv
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mm.files import write_json
from mm.protocols import Offers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A small table of results, which prints as aligned text and renders as HTML in a notebook.

    Args:
        columns: Column headers.
        rows: One sequence of cells per row, as long as `columns`. A cell is a text, a number or None.
        title: A line above the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index}: got {len(row)} cells, wanted {len(self.columns)}")

    def __str__(self) -> str:
        """Return the table as text, with numbers aligned to the right and everything else to the left."""
        cells = [list(self.columns), *([format_cell(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        right = [all(isinstance(row[i], int | float | None) for row in self.rows) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.rjust(width) if is_right else cell.ljust(width)
                for cell, width, is_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*([self.title] if self.title else []), *lines])

    def _repr_html_(self) -> str:
        """Return the table as HTML for a notebook."""

        def row_of(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        body = "".join(row_of([format_cell(cell) for cell in row], "td") for row in self.rows)
        return f"<table>{caption}<thead>{row_of(self.columns, 'th')}</thead><tbody>{body}</tbody></table>"

    def to_csv(self) -> str:
        """Return the table as CSV, with numbers at full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per row, which `pandas.DataFrame` accepts."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Report(ABC):
    """Results of a public function: metrics, a table, optionally a figure, and files.

    Attributes:
        metrics: Flat mapping of metric name, such as `test/accuracy`, to value.
    """

    metrics: Mapping[str, float]

    @abstractmethod
    def table(self) -> Table:
        """Return the results as a table."""

    def figure(self) -> "Figure":
        """Return a matplotlib figure of the results.

        Raises:
            ValueError: If this kind of report has no figure.
        """
        raise ValueError(f"{type(self).__name__} has no figure; use .table() or .metrics")

    def save(self, folder: str | Path) -> Path:
        """Write the files of the report into a folder, which is created if it does not exist.

        Args:
            folder: Path of the folder. Existing files of the same names are replaced.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", self.metrics)
        return folder

    def __repr__(self) -> str:
        """Return the name of the class and the table."""
        return f"{type(self).__name__}\n{self.table()}"

    def _repr_html_(self) -> str:
        """Return the report as HTML for a notebook."""
        return self.table()._repr_html_()


def format_cell(cell: Any) -> str:
    """Return a cell as text: floats with four significant digits, and "" for None."""
    if cell is None:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, float):
        return str(cell)
    return f"{cell:.4g}"


@runtime_checkable
class HasFigure(Protocol, metaclass=Offers):
    """A metric with several values and a figure, such as a confusion matrix."""

    def names(self) -> list[str]:
        """Return the keys of the computed values."""
        ...

    def figure(self) -> Any:
        """Return a matplotlib Figure of the data since the last reset."""
        ...
