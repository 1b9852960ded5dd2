"""Generated tables and media files: every one ends in the rows of an independent reading, or in one clear ValueError.

The tables have hostile cells, several encodings, quotes, ragged and torn files; the media files have several formats,
depths and channels, and are torn at any byte. The independent readings are Python's csv and json, pyarrow, Pillow and
soundfile.
"""

import csv
import io
import json
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from mm.datamodules.manifest import ManifestDataModule
from mm.targets.multilabel import MultilabelTarget
from mm.targets.regression import RegressionTarget
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.tabular.row import TabularTransform
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform

HOSTILE = ["", " ", "a", "A", "0", "0.0", "1e0", "01", "+1", "NA", "nan", "inf", "-inf", "null", "None", "true", "1,5"]
HOSTILE += ["caf\u00e9", "cafe\u0301", "\uff21", "${oc.env:HOME}", "$10-$20", "[red]x[/red]", "<b>&amp;", "; rm -rf ~"]
HOSTILE += [
    "\u200b",
    "\ufeff",
    "\u2028",
    "\x0b",
    "\x1c",
    "\x85",
    "\U0001f600",
    "\u202egnp",
    "x" * 300,
    "a\nb",
    "a\r\nb",
]
HOSTILE += [
    "a\rb",
    "\t",
    ",",
    '"',
    '""',
    '"a"',
    'a "b" c',
    "'",
    "\\",
    "\\n",
    "#",
    "a|b",
    "|",
    "train",
    "\0",
    "a\0b",
    "=1+1",
]
NAMES = ["words", "mark", "key", "side", "part", "Ünï", "a b", "x"]
ENCODINGS = ["utf-8"] * 8 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-8 with a wrong byte"]
SPLITS = ["train", "train", "train", "val", "test"]
ARROW_TYPES = {  # by the type that pyarrow infers
    "string": [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())],
    "int64": [pyarrow.int64(), pyarrow.int8(), pyarrow.float32(), pyarrow.decimal128(12, 2)],
    "double": [pyarrow.float64(), pyarrow.float32()],
}
KINDS = ["class", "number", "labels"]
NO_COLUMNS = dict.fromkeys(("text", "vision", "audio", "target", "targets", "id", "split", "group", "inputs"))
SHARED: dict[str, Any] = {"batch_size": 8, "num_workers": 0, "seed": 0}
ENDS: Counter[str] = Counter()  # how the cases ended

CASES = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


class Case(NamedTuple):
    """A table as it is written."""

    format: str
    kind: str  # of the target
    columns: dict[str, list[Any]]
    roles: dict[str, Any]
    encoding: str
    style: str  # of a CSV or TSV file
    torn: float | None  # where the file ends
    on_error: str
    quotes: bool | None


@st.composite
def cases(draw: Any) -> Case:
    """Hypothesis draws the shape and the pool of cells, and a seeded generator the cells: 200 rows are drawn fast."""
    rows = draw(st.one_of(st.integers(5, 40), st.integers(20, 200), st.integers(0, 200)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    format = draw(st.sampled_from(["csv", "csv", "tsv", "jsonl", "parquet"]))
    kind = draw(st.sampled_from(KINDS))
    hostile = draw(st.booleans())
    own = draw(st.lists(st.text(max_size=8), max_size=6))
    pool = [*own, *rng.sample(HOSTILE, 12)] if hostile else [f"text {i}" for i in range(50)]
    names = rng.sample(NAMES, 5)
    columns: dict[str, list[Any]] = {names[0]: [rng.choice(pool) for _ in range(rows)]}
    labels = {"class": ["red", "blue", "green", ""], "labels": ["a|b", "a", "|", "b|c"], "number": ["1", "2.5", "-3e2"]}
    few = draw(st.sampled_from([[], [], pool[:3], [0, 1], [0, 1.0, 2.5], [True, False], [None, "x"], [["a"], ["b"]]]))
    marks = labels[kind] + (few if format in ("jsonl", "parquet") or few == pool[:3] else [])
    columns[names[1]] = [rng.choice(marks) for _ in range(rows)]
    roles: dict[str, Any] = {"text": names[0], "target": names[1]}
    if draw(st.booleans()):
        twice = rng.random() < 0.2
        columns[names[2]] = [rng.choice(pool) if twice else f"{rng.choice(['r', 'é'])}{i}" for i in range(rows)]
        roles["id"] = names[2]
    if draw(st.booleans()):
        columns[names[3]] = [rng.choice(SPLITS + pool[:1] * (rng.random() < 0.1)) for _ in range(rows)]
        roles["split"] = names[3]
    if draw(st.booleans()):
        cells = draw(
            st.sampled_from([["1", "2", ""], ["x", "Y", ""], pool, ["[1]", '["a", "b"]'], [*"123456789", "NA"]])
        )
        columns[names[4]] = [rng.choice(cells) for _ in range(rows)]
        roles["tabular"] = [names[4]]
    encoding = draw(st.sampled_from(ENCODINGS)) if format != "parquet" else "utf-8"
    style = draw(st.sampled_from(["minimal", "minimal", "all", "crlf", "joined", "blank lines"]))
    torn = draw(st.sampled_from([None, None, None, None, None, rng.random()]))
    on_error = draw(st.sampled_from(["raise", "raise", "drop", "missing"]))
    return Case(
        format, kind, columns, roles, encoding, style, torn, on_error, draw(st.sampled_from([None, True, False]))
    )


def write_table(case: Case, path: Path) -> None:
    """Write the file of a case."""
    rows = list(zip(*case.columns.values()))
    if case.format == "parquet":
        columns = {name: arrow_column(cells) for name, cells in case.columns.items()}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        data = path.read_bytes()
    else:
        if case.format == "jsonl":
            lines = [json.dumps(dict(zip(case.columns, row)), ensure_ascii=len(row) % 2 == 0) for row in rows]
            text = "".join(f"{line}\n" for line in lines)
        else:
            text = delimited_text(case, rows)
        data = encoded(text, case.encoding)
    path.write_bytes(data if case.torn is None else data[: int(case.torn * len(data))])


def arrow_column(cells: Sequence[Any]) -> pyarrow.Array:
    """Return the cells as they are, in one of Arrow's types for them, or as texts where they are of several kinds."""
    try:
        column = pyarrow.array(cells)
        others = ARROW_TYPES.get(str(column.type), [])
        return column.cast(others[len(cells) % len(others)]) if others else column
    except (pyarrow.ArrowException, UnicodeEncodeError):
        texts = [None if cell is None else str(cell).encode("utf-8", "replace").decode() for cell in cells]
        return pyarrow.array(texts, pyarrow.string())


def delimited_text(case: Case, rows: Sequence[Sequence[Any]]) -> str:
    """Return a CSV or TSV file as a program, or a careless one, writes it."""
    delimiter = "," if case.format == "csv" else "\t"
    if case.style == "joined":
        return "\n".join(delimiter.join(map(str, row)) for row in [list(case.columns), *rows])
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if case.style == "all" else csv.QUOTE_MINIMAL
    writer = csv.writer(
        file, delimiter=delimiter, lineterminator="\r\n" if case.style == "crlf" else "\n", quoting=quoting
    )
    writer.writerow(case.columns)
    for row in rows:
        writer.writerow(row)
        if case.style == "blank lines":
            file.write("\n")
    return file.getvalue()


def encoded(text: str, encoding: str) -> bytes:
    """Return the bytes of a file in one of ENCODINGS."""
    if not encoding.startswith("utf-8 "):
        return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    data = text.encode("utf-8", "surrogatepass")
    return data[: len(data) // 2] + b"\xe9" + data[len(data) // 2 :]


def read_independently(case: Case, path: Path) -> dict[str, list[Any]] | None:
    """Return the columns as Python's csv and json or pyarrow read them; None where the file is none, or has no rows."""
    try:
        if case.format == "parquet":
            return pyarrow.parquet.read_table(path).to_pydict()
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")  # rows with wrong bytes are faulty
        if case.format == "jsonl":
            objects = [json.loads(line) for line in re.split("\r\n|\r|\n", text) if line.strip()]
            assert all(isinstance(one, dict) for one in objects)
            names = dict.fromkeys(name for one in objects for name in one)
            return {name: [one.get(name) for one in objects] for name in names}
        quotes = case.format == "csv" if case.quotes is None else case.quotes
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter="," if case.format == "csv" else "\t",
            quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
            strict=quotes,
        )
        header, *rows = [row for row in reader if row]
        if any(len(row) != len(header) for row in rows):
            return None
        return {name.strip(): [row[i] for row in rows] for i, name in enumerate(header)}
    except (UnicodeDecodeError, ValueError, csv.Error, pyarrow.ArrowException, OSError, AssertionError):
        return None


def as_text(cell: Any) -> str:
    """Return a cell as a person writes it: whole floats without their point."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return unicodedata.normalize("NFC", str(cell).strip())


def same_label(truth: Any, cell: Any, kind: str) -> bool:
    """Return whether the truth of a row is what its cell says."""
    if kind == "labels":
        text = cell if isinstance(cell, list) else as_text(cell)
        if text == "":
            return truth is None
        names = text if isinstance(text, list) else text.split("|")
        wanted = {as_text(name) for name in names} - {""}
        return truth is not None and (set(truth) == wanted or {*map(numeral, truth)} == {*map(numeral, wanted)})
    text = "|".join(map(as_text, cell)) if isinstance(cell, list) else as_text(cell)
    if text == "":
        return truth is None
    if kind == "number":
        return truth == float(text)
    return truth == text or numeral(truth) == numeral(text) != None  # noqa: E711


def numeral(text: str | None) -> float | str | None:
    """Return the number that a text is."""
    return float(text) if text is not None and re.fullmatch(r"-?[0-9.]+([eE][+-]?[0-9]+)?", text) else text


def check_message(error: ValueError, path: Path, columns: Sequence[str]) -> None:
    """The message is one for a person, and says where: the file, and the row, line, column or setting."""
    text = str(error)
    assert type(error) is ValueError, repr(error)
    named = [path.name, "datamodule.", *(f"'{name}'" for name in columns)]
    assert any(name in text for name in named), text
    places = ("row ", "line ", "byte ", "column", "datamodule.", "rows", "encoded as", "can't be read as", "has no")
    assert any(place in text for place in places), text
    assert "Traceback" not in text and len(text) < 2000, text
    text.encode()  # a terminal takes it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.mark.slow
@settings(CASES, max_examples=1400)
@given(case=cases())
def test_tables(folder: Path, case: Case) -> None:
    path = folder / f"rows.{case.format}"
    write_table(case, path)
    readers: dict[str, Any] = {
        "class": {},
        "number": {"target": RegressionTarget()},
        "labels": {"target": MultilabelTarget()},
    }[case.kind]
    module = ManifestDataModule(
        path=str(path),
        columns=NO_COLUMNS | case.roles,
        quoting=case.quotes,
        readers=readers,
        on_error=case.on_error,
        split={"val": 0.2, "test": 0.2},
        **SHARED,
    )
    try:
        table = module.table
        tabular = {name: TabularTransform(data.columns) for name, data in table.spec.inputs.items() if data.columns}
        module.use({"text": TextTransform("bytes"), **tabular})
        splits = [name for name in ("train", "val", "test") if (table.split == name).any()]
        batches = [batch for name in splits for batch in module.loader(name)]
    except ValueError as error:
        check_message(error, path, list(case.columns))
        ENDS["message"] += 1
        return
    cells = read_independently(case, path)
    assert cells is not None
    count = len(table.ids)
    assert {len(column) for column in cells.values()} == {count}
    faulty = {row for row, _ in module.faults}
    left_out = {row for row in range(count) if table.split[row] == ""}
    if case.on_error == "raise":
        assert not faulty
    for row in set(range(count)) - faulty:
        text = cells[case.roles["text"]][row]
        assert (table.inputs["text"][row] or "") == (text or "")
        if row not in left_out:
            assert same_label(module.truth("target", row), cells[case.roles["target"]][row], case.kind)
        if "tabular" in case.roles:
            (name,) = case.roles["tabular"]
            found = (table.inputs["tabular"][row] or {name: ""})[name]
            assert found == cells[name][row] or as_text(cells[name][row]) == as_text(found) == ""
        if "id" in case.roles:
            assert table.ids[row] == as_text(cells[case.roles["id"]][row])
        names = cells[case.roles["split"]] if "split" in case.roles else []
        if "val" in names and names[row] in SPLITS and row not in left_out:  # else validation rows are drawn
            assert table.split[row] == names[row]
    read: dict[int, bytes] = {}
    for batch in batches:
        for i, row in enumerate(batch.row.tolist()):
            if row >= 0:
                read[row] = bytes((batch.inputs["text"][i][batch.masks["text"][i]] - 1).tolist())
    for row, data in read.items():
        if row not in faulty:
            assert data == (cells[case.roles["text"]][row] or "").encode()
    assert set(range(count)) - left_out - faulty <= set(read)
    ENDS["rows"] += 1


@pytest.mark.slow
def test_tables_end_in_both_ways() -> None:
    """Else the test above would generate nothing but good, or nothing but broken tables."""
    assert min(ENDS["rows"], ENDS["message"]) > 0.2 * (ENDS["rows"] + ENDS["message"]), ENDS


IMAGES = [("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")] + [
    ("jpg", mode) for mode in ("L", "RGB", "CMYK")
]
SOUNDS = [("wav", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")] + [
    ("flac", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24")
]
MEDIA = {
    "vision": ImageTransform((9, 11), 3),
    "audio": AudioTransform(8000),
}


def media_module(path: Path, modality: str) -> ManifestDataModule:
    """Return a datamodule of eight rows that all name one file."""
    table = path.with_name("media.csv")
    table.write_text("file,split\n" + f"{path.name},train\n" * 8, encoding="utf-8")
    roles = {modality: "file", "split": "split"}
    split = {"val": 0, "test": 0}
    module = ManifestDataModule(path=str(table), columns=NO_COLUMNS | roles, on_error="raise", split=split, **SHARED)
    module.use({modality: MEDIA[modality]})
    return module


def tear(path: Path, at: float | None) -> None:
    """Let a file end at a part of its bytes."""
    data = path.read_bytes()
    if at is not None:
        path.write_bytes(data[: int(at * len(data))])


TORN = st.one_of(st.none(), st.floats(0, 1, exclude_max=True))


@pytest.mark.slow
@settings(CASES, max_examples=300)
@given(kind=st.sampled_from(IMAGES), seed=st.integers(0, 2**16), torn=TORN)
def test_pictures(folder: Path, kind: tuple[str, str], seed: int, torn: float | None) -> None:
    suffix, mode = kind
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (9, 11, 4), dtype=np.uint8)
    image = Image.fromarray(colours)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (9, 11), dtype=np.uint16))
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    path = folder / f"picture.{suffix}"
    image.save(path)
    with Image.open(path) as whole:
        whole.load()
        wanted = whole.copy()
    tear(path, torn)
    try:
        batch = next(iter(media_module(path, "vision").loader("train")))
    except ValueError as error:
        assert path.name in str(error), error
        assert torn is not None
        return
    pixels = batch.inputs["vision"][0].numpy()
    assert batch.masks["vision"].all()
    assert pixels.shape == (batch.inputs["vision"].shape[1], 9, 11)
    if mode in ("1", "L", "P", "RGB", "CMYK"):
        expected = np.asarray(wanted.convert("RGB")).transpose(2, 0, 1)
        assert pixels.tolist() == expected.tolist()


@pytest.mark.slow
@settings(CASES, max_examples=300)
@given(kind=st.sampled_from(SOUNDS), seed=st.integers(0, 2**16), channels=st.integers(1, 3), torn=TORN)
def test_sounds(folder: Path, kind: tuple[str, str], seed: int, channels: int, torn: float | None) -> None:
    suffix, subtype = kind
    rng = np.random.default_rng(seed)
    path = folder / f"sound.{suffix}"
    wave = rng.uniform(-0.9, 0.9, (int(rng.integers(1, 2000)), channels))
    soundfile.write(path, wave, 8000, subtype=subtype)
    wanted = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1)
    tear(path, torn)
    try:
        batch = next(iter(media_module(path, "audio").loader("train")))
    except ValueError as error:
        assert path.name in str(error), error
        assert torn is not None
        return
    assert batch.inputs["audio"][0][batch.masks["audio"][0]].numpy() == pytest.approx(wanted, abs=1e-7)
