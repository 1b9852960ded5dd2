"""Files and folders -> columns of cells."""

import csv
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pyarrow.compute import MatchSubstringOptions
from pyarrow.compute import call_function as call

from mm.cells import text_fault
from mm.data.readers.boxes import is_coco, is_voc, read_coco, read_voc
from mm.data.readers.fast_csv import read_fast
from mm.data.splitting import spelt
from mm.data.table import SPLITS
from mm.messages import listing
from mm.modalities import get_modality
from mm.text_column import TextColumn

Cells = dict[str, Any]  # column name -> its cells by row, a list or a TextColumn

READERS = {".csv": ",", ".tsv": "\t", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet"}
PART = 2**20  # texts in one piece of a column: a piece holds at most 2 GB
READERS |= {".txt": "lines", ".gz": "lines", ".conll": "conll", ".bio": "conll", ".json": "whole"}


def read_cells(path: Path, quotes: bool | None = None, header: Sequence[str] | None = None) -> Cells:
    """A table, or a file or folder of a task's own format -> columns. header: their names, where a CSV or TSV has none.

    Errors: ValueError naming file and line.
    """
    if is_voc(path):
        return read_voc(path)
    if not path.is_file():
        what = "is a folder, wanted a file" if path.is_dir() else f"no such file (the current folder is {Path.cwd()})"
        raise ValueError(f"datamodule.path: {path}: {what}")
    how = READERS.get(path.suffix.lower())
    if path.suffix.lower() == ".gz" and READERS.get(Path(path.stem).suffix.lower(), "lines") != "lines":
        raise ValueError(f"datamodule.path: {path.name}: only plain texts are read packed; unpack it")
    if how is None:
        raise ValueError(f"datamodule.path: got {path.name}, wanted a file ending in {', '.join(READERS)}")
    if how not in (",", "\t") and header is not None:
        raise ValueError(f"datamodule.header: {path.name} names its columns itself; leave it out")
    if how in FORMATS:
        cells = FORMATS[how](path)
    else:
        cells = read_delimited(path, how, how == "," if quotes is None else quotes, header)
    if not cells or not next(iter(cells.values())):
        raise ValueError(f"{path}: has no rows")
    return cells


def read_delimited(path: Path, delimiter: str, quotes: bool, header: Sequence[str] | None = None) -> Cells:
    """The first line names the columns. Bytes that are no UTF-8 are kept as surrogates, which `read_part` names."""
    csv.field_size_limit(2**31 - 1)  # texts may be longer than the module's 131,072 characters
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    check_encoding(path)
    given = None if header is None else check_header([str(name) for name in header], "datamodule.header")
    fast = read_fast(path, delimiter, quotes, given)
    if fast is not None:
        return fast
    rows, names = [], given
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
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
        except csv.Error as error:
            what = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
            raise ValueError(
                f'{path}: line {begun}: {what}; write a quote inside a field as "", or set datamodule.quotes=false'
            ) from None
    return dict(zip(names or (), map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


def ragged(
    cells: Sequence[str], names: Sequence[str], header: Sequence[str] | None, delimiter: str, quotes: bool
) -> str:
    """What to say of a line with too many or too few fields."""
    if header is not None:
        return f"{len(cells)} fields, but datamodule.header names {len(names)}: {listing(names)}"
    fix = 'put a field that holds the delimiter in "quotes"' if quotes else "a field must not hold the delimiter"
    if len(names) == 1 and delimiter not in names[0]:
        fix = f"is '{'tab' if delimiter != ',' else ','}' the delimiter? .csv files have commas, .tsv files tabs"
    return f"{len(cells)} fields, wanted {len(names)} as in the first line; {fix}"


def check_encoding(path: Path) -> None:
    """Raise ValueError where a file is UTF-16 or UTF-32, as some spreadsheets save, or begins with other binary data.

    Without a byte order mark, UTF-16 has NUL as every other byte of most texts.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    check_unpacked(head, path)


def check_unpacked(head: bytes, path: Path) -> None:
    """As `check_encoding`, of the first bytes of a text."""
    nul = f"{path}: byte {head.find(0) + 1} is NUL, as many others are; it is damaged, or no text file"
    even, odd = (head[first::2].count(0) * 2 > len(head[first::2]) for first in (0, 1))
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        name = "utf-32"
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = "utf-16"
    elif head.count(0) * 4 < max(len(head), 8):
        return
    elif even == odd:
        raise ValueError(nul)
    else:
        name = "utf-16be" if even else "utf-16le"
    fix = f"save it as UTF-8, for example iconv -f {name} -t utf-8 OLD > NEW"
    raise ValueError(f"{path}: is encoded as {name[:6].upper()}; {fix}")


def check_header(names: list[str], where: str) -> list[str]:
    """Errors: ValueError where a name is there twice or can't be read."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: the column '{twice}' is there twice; rename one")
    if any(text_fault(name) for name in names):
        fix = "save the file as UTF-8, for example iconv -f latin1 -t utf-8 OLD > NEW"
        raise ValueError(f"{where}: the column names are not valid UTF-8; {fix}")
    return names


def read_jsonl(path: Path) -> Cells:
    """One JSON object a line; a key that a line lacks is an empty cell."""
    cells: Cells = {}
    count = 0
    check_encoding(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: line {number}: is no JSON ({error}); wanted one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number}: got {type(row).__name__}, wanted one object a line")
            for name, cell in row.items():
                column = cells.setdefault(name, [])
                column += [None] * (count - len(column))
                column.append(cell)
            count += 1
    for column in cells.values():
        column += [None] * (count - len(column))
    check_header(list(cells), str(path))
    return {name: packed(column) for name, column in cells.items()}


def packed(cells: list[Any]) -> Sequence[Any]:
    """Return a column of texts, where some may be None, in Arrow's memory; any other as it is."""
    if not all(cell is None or type(cell) is str for cell in cells):
        return cells
    if any(cell is not None and "\0" in cell for cell in cells):  # named later, with its row
        return cells
    try:
        parts = [pyarrow.array(cells[i : i + PART], pyarrow.string()) for i in range(0, len(cells), PART)]
    except UnicodeEncodeError:  # lone surrogates, which are named later, with their row
        return cells
    return TextColumn(pyarrow.chunked_array(parts, pyarrow.string()))


def read_conll(path: Path) -> Cells:
    """A word a line, its tag last, an empty line after each text -> columns text and target, a list of tags."""
    check_encoding(path)
    texts: list[list[list[str]]] = [[]]
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if not words or words[0] == "-DOCSTART-":
                texts.append([])
            elif len(words) == 1:
                raise ValueError(f"{path}: line {number}: got '{words[0]}' alone, wanted a word and its tag")
            else:
                texts[-1].append(words)
    found = [text for text in texts if text]
    return {"text": [" ".join(w[0] for w in x) for x in found], "target": [[w[-1] for w in x] for x in found]}


def read_whole(path: Path) -> Cells:
    """A JSON file of COCO's or SQuAD's. Errors: ValueError where it is neither."""
    check_encoding(path)
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); wanted a file of SQuAD's or COCO's") from None
    return read_coco(path, document) if is_coco(document) else read_squad(path, document)


def read_squad(path: Path, document: Any) -> Cells:
    """Questions of passages (SQuAD 1 or 2) -> columns id, title, question, context and answers, a list each.

    Errors: ValueError where the file is none.
    """
    wanted = "as SQuAD has it: {data: [{title, paragraphs: [{context, qas: [{id, question, answers}]}]}]}"
    cells: Cells = {name: [] for name in ("id", "title", "question", "context", "answers")}
    try:
        for number, article in enumerate(document["data"]):
            for paragraph in article["paragraphs"]:
                for one in paragraph["qas"]:
                    answers = [] if one.get("is_impossible") else one.get("answers")  # of a blind test there are none
                    row = (one["id"], article.get("title") or str(number), one["question"], paragraph["context"])
                    for name, cell in zip(cells, (*row, None if answers is None else [dict(x) for x in answers])):
                        cells[name].append(cell)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: {type(error).__name__} {error}; wanted a file {wanted}") from None
    return cells


def read_parquet(path: Path) -> Cells:
    """Errors: ValueError where the file is none, or a cell can't be read."""
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: can't be read as Parquet: {error}") from None
    check_header(table.column_names, str(path))
    try:
        return unpack_table(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def unpack_table(table: pyarrow.Table) -> Cells:
    """Return the columns of an Arrow table; texts that are valid UTF-8 stay in its memory."""
    return {name: unpack_column(name, table.column(name)) for name in table.column_names}


def unpack_column(name: str, column: pyarrow.ChunkedArray) -> Sequence[Any]:
    """Return the cells of a column. Raise ValueError for the first that Python can't hold, such as the year 100000."""
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        try:
            column.validate(full=True)
            has_nul = call("any", [call("match_substring", [column], MatchSubstringOptions("\0"))]).as_py()
            return column.to_pylist() if has_nul else TextColumn(column)
        except pyarrow.ArrowInvalid:
            kind = pyarrow.binary() if pyarrow.types.is_string(column.type) else pyarrow.large_binary()
            cells = [cell for chunk in column.chunks for cell in chunk.view(kind).to_pylist()]
            return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, UnicodeDecodeError) as error:
        row = next(row for row in range(len(column)) if not is_readable(column[row]))
        raise ValueError(f"row {row}, column '{name}': the cell can't be read: {error}") from None


def is_readable(cell: pyarrow.Scalar) -> bool:
    """Return whether Python has a value for an Arrow scalar."""
    try:
        cell.as_py()
        return True
    except (ValueError, OverflowError, UnicodeDecodeError):
        return False


def read_lines(path: Path) -> list[str]:
    """Of a text file, .gz or not; bytes that are no UTF-8 are kept as surrogates: reading the row names it."""
    if not path.is_file():
        raise ValueError(f"datamodule.path: no file {path}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"datamodule.path: {path} can't be unpacked: {error}") from None
    check_unpacked(data[:4096], path)
    text = data.decode("utf-8-sig", errors="surrogateescape")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_texts(path: Path) -> Cells:
    """A text a line -> column text; empty lines are none."""
    return {"text": [line for line in read_lines(path) if line.strip()]}


FORMATS = {"lines": read_texts, "json": read_jsonl, "conll": read_conll, "whole": read_whole, "parquet": read_parquet}


def read_folder(path: Path, modality: str, flat: bool = False) -> Cells:
    """A folder per class, perhaps below a folder per split -> columns named by modality, target, id and split.

    flat: files without a class folder are fine, and have no target. Hidden files and folders are passed over.
    """
    path = path.resolve()
    kind = get_modality(modality)
    found = [(f, f.relative_to(path).parts) for f in sorted(path.rglob("*")) if f.suffix.lower() in kind.suffixes]
    found = [(f, p) for f, p in found if f.is_file() and not any(part.startswith(".") for part in p)]
    if not found:
        raise ValueError(f"datamodule.path: no file below {path} ends in {', '.join(kind.suffixes)}")
    files, parts = [f for f, _ in found], [p for _, p in found]
    cells: Cells = {
        modality: [kind.read_file(f) for f in files],
        "id": ["/".join(p) for p in parts],
    }
    if flat and all(len(p) == 1 for p in parts):
        return cells
    named = [spelt(p[0]) in SPLITS for p in parts]
    splits = all(named)
    for p, is_split in zip(parts, named, strict=True):
        if len(p) < 2 + splits:
            wanted = f"{path}/{p[0] + '/' if splits else ''}CLASS/{p[-1]}"
            raise ValueError(f"datamodule.path: {path.joinpath(*p)} lies in no class folder, wanted {wanted}")
        if is_split and not splits:
            other = next(q[0] for q, n in zip(parts, named, strict=True) if not n)
            raise ValueError(
                f"datamodule.path: {path} holds the split '{p[0]}' and beside it '{other}', wanted SPLIT/CLASS/FILE or "
                f"CLASS/FILE; move one of them away"
            )
    cells["target"] = [p[1] if splits else p[0] for p in parts]
    return cells | ({"split": [p[0] for p in parts]} if splits else {})


def read_any(
    path: Path, modality: str, quotes: bool | None = None, header: Sequence[str] | None = None, flat: bool = False
) -> Cells:
    """A folder of files, or a table file."""
    return read_folder(path, modality, flat) if path.is_dir() and not is_voc(path) else read_cells(path, quotes, header)
