"""CSV and TSV files -> columns of cells."""

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mm.data.readers.encoding import check_encoding, check_header
from mm.data.readers.fast_csv import read_fast
from mm.data.table import Cells
from mm.messages import listing


class TableFormat(NamedTuple):
    """How CSV and TSV files are written.

    Attributes:
        quotes: Whether fields may be quoted; None: in CSV yes, in TSV no.
        header: The columns' names, where the file has no line of them.
        delimiter: The character between fields; None: a comma in .csv, a tab in .tsv.
        encoding: Of the text, such as "latin-1" or "utf-16"; None: UTF-8.
    """

    quotes: bool | None = None
    header: Sequence[str] | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def check(self) -> None:
        """Check the settings themselves.

        Raises:
            ValueError: If the delimiter is not one character, or the encoding is unknown.
        """
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"'):
            raise ValueError(f"datamodule.delimiter: got {self.delimiter!r}, wanted one character, such as ';'")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ValueError(
                    f"datamodule.encoding: got '{self.encoding}', wanted one that Python knows, such as latin-1"
                ) from None


def read_delimited(
    path: Path, delimiter: str, quotes: bool, header: Sequence[str] | None = None, encoding: str | None = None
) -> Cells:
    """Return the columns of a CSV or TSV file.

    Args:
        path: The file. Bytes that are no UTF-8 are kept as surrogates, which `read_part` names.
        delimiter: The character between fields.
        quotes: Whether fields may be quoted.
        header: The columns' names; None: the first line has them.
        encoding: Of the text; None: UTF-8.

    Raises:
        ValueError: If the file can't be read; the message names its line.
    """
    csv.field_size_limit(2**31 - 1)  # texts may be longer than the module's 131,072 characters
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    if encoding is None:
        check_encoding(path)
    given = None if header is None else check_header([str(name) for name in header], "datamodule.column_names")
    fast = read_fast(path, delimiter, quotes, given) if encoding is None and delimiter.isascii() else None
    if fast is not None:
        return fast
    rows, names = [], given
    errors = "surrogateescape" if encoding is None else "strict"
    with path.open(newline="", encoding=encoding or "utf-8-sig", errors=errors) as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=quotes)
        begun = 1  # line on which the row begins: a quoted field may span several
        try:
            for cells in reader:
                if cells and names is None:
                    names = check_header([name.strip() for name in cells], f"{path}: line {begun}")
                elif cells and len(cells) != len(names or ()):
                    raise ValueError(f"{path}: line {begun}: {ragged(cells, names or (), header, delimiter, quotes)}")
                elif cells:
                    rows.append(cells)
                begun = reader.line_num + 1
        except UnicodeError as error:
            raise ValueError(
                f"{path}: line {begun}: can't be read as {encoding} ({error}); set datamodule.encoding"
            ) from None
        except csv.Error as error:
            what = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
            raise ValueError(
                f'{path}: line {begun}: {what}; write a quote inside a field as "", or set datamodule.quoting=false'
            ) from None
    return dict(zip(names or (), map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


def ragged(
    cells: Sequence[str], names: Sequence[str], header: Sequence[str] | None, delimiter: str, quotes: bool
) -> str:
    """What to say of a line with too many or too few fields."""
    if header is not None:
        return f"{len(cells)} fields, but datamodule.column_names names {len(names)}: {listing(names)}"
    fix = 'put a field that holds the delimiter in "quotes"' if quotes else "a field must not hold the delimiter"
    if len(names) == 1 and delimiter not in names[0]:
        fix = f"is '{'tab' if delimiter != ',' else ','}' the delimiter? .csv files have commas, .tsv files tabs; "
        fix += "else set datamodule.delimiter"
    return f"{len(cells)} fields, wanted {len(names)} as in the first line; {fix}"
