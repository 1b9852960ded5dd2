"""Columns of a table -> one input, in one file and in several; what is wrong with a cell."""

import csv

import pytest

from mm.datamodules.manifest import ManifestDataModule
from mm.transforms.tabular.row import TabularTransform
from mm.types import ColumnData

ROLES = ("text", "vision", "audio", "tabular", "inputs", "target", "targets", "id", "split", "group")
LIKES = {"column": "likes", "separator": "|"}
LINES = [
    ["age", "city", "likes", "label", "split"],
    ["10", "Bern", "a|b", "x", "train"],
    ["30", "", "", "y", "train"],
    ["", "", "", "x", "train"],
    ["50", "Ulm", "b", "y", "train"],
    ["90", "Oslo", "c|a", "x", "val"],
    ["20", "Bern", "a", "y", "test"],
]


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(columns, *files, on_error="raise", **more):
        files = files or (LINES,)
        for i, lines in enumerate(files):
            with (tmp_path / f"{i}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(lines)
        usual = {"batch_size": 8, "num_workers": 0, "split": {"val": 0.1, "test": 0.1, "seed": 0}, "seed": 0}
        paths = [f"{i}.csv" for i in range(len(files))]
        columns = dict.fromkeys(ROLES) | {"target": "label"} | columns
        path = paths[0] if len(paths) == 1 else paths
        return ManifestDataModule(path, columns, on_error=on_error, **usual, **more)

    return build


def test_several_columns_are_one_input(make, printed_log):
    module = make({"tabular": ["age", "city", LIKES]})
    data = module.table.spec.inputs["tabular"]
    assert data.cardinalities == (0, 3, 3)
    assert [c.kind for c in data.columns] == ["number", "category", "list"]
    assert data.columns[0].mean == 30.0  # of the training rows alone
    assert data.columns[2].classes == ("a", "b")
    assert (
        "tabular: age is a number (mean 30, deviation 16.3299); city is one of 2 classes"
        in printed_log.readouterr().out
    )
    module.use({"tabular": TabularTransform(data.columns)})
    batch = next(iter(module.loader("train")))
    assert batch.masks["tabular"].sum(1).tolist() == [4, 1, 0, 3]
    (val,) = module.loader("val")
    assert val.inputs["tabular"][0, :, 1].tolist() == [0, 0, 0, 1]
    assert module.notes == {(2, "no_input"), (4, "oov/tabular")}


def test_full_form_and_one_column(make):
    inputs = {"user": {"column": [{"column": "age", "kind": "category"}], "modality": "tabular"}}
    inputs |= {"place": {"column": "city", "modality": "tabular"}}
    table = make({"inputs": inputs}).table
    assert table.spec.inputs["user"].columns == (ColumnData(name="age", kind="category", classes=("10", "30", "50")),)
    assert table.inputs["place"][:2] == [{"city": "Bern"}, None]
    assert table.columns == {"user": "age", "place": "city", "target": "label"}
    plain = make({}, [["tabular" if x == "age" else x for x in line] for line in LINES]).table
    assert plain.spec.inputs["tabular"].columns[0].kind == "number"


def test_classes_are_those_of_all_files(make):
    other = [LINES[0], ["70", "Rome", "d", "x", "train"], ["1", "Wien", "", "x", "val"]]
    table = make({"tabular": ["city", "age"]}, LINES, other).table
    assert table.spec.inputs["tabular"].columns[0].classes == ("Bern", "Rome", "Ulm")
    assert table.spec.inputs["tabular"].columns[1].mean == 40.0


AGE = {"column": "age", "kind": "number"}
WRONG = [*LINES, ["old", "Bern", "a", "x", "train"]]


def test_a_number_that_is_none(make):
    with pytest.raises(ValueError, match=r"0.csv: row 6 \(id '6'\), column 'age': got 'old', wanted a number"):
        _ = make({"tabular": [AGE, "city"]}, WRONG).table
    missing = make({"tabular": [AGE, "city"]}, WRONG, on_error="missing")
    assert missing.table.inputs["tabular"][6] == {"age": None, "city": "Bern"}
    assert missing.faults == {(6, "age"): "got 'old', wanted a number"}
    dropped = make({"tabular": [AGE, "city"]}, WRONG, on_error="drop")
    assert dropped.table.split[6] == ""
    assert make({"tabular": ["age"]}, WRONG).table.spec.inputs["tabular"].columns[0].kind == "category"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tabular": ["agee"]}, "no column 'agee'; .* did you mean 'age'"),
        ({"tabular": [{"column": "age", "knd": "number"}]}, "'knd' of .*: nothing reads it, .* did you mean 'kind'"),
        ({"tabular": [{"kind": "number"}]}, "wanted a column, or {column: ..., kind: ..., separator: ...}"),
        ({"tabular": ["age", "age"]}, "wanted at least one column, and each once"),
        ({"tabular": []}, "wanted at least one column, and each once"),
        ({"inputs": {"user": {"column": "age", "modality": "table"}}}, r"modality: text\|vision\|audio\|tabular"),
        ({"text": ["age", "city", "label"]}, "wanted a column, or two for a pair of texts"),
    ],
)
def test_mistakes(make, columns, said):
    with pytest.raises(ValueError, match=said):
        _ = make(columns).table


def test_an_empty_column(make):
    lines = [[*line[:2], "", *line[3:]] for line in LINES[1:]]
    with pytest.raises(ValueError, match="column 'likes': no training row has a cell"):
        _ = make({"tabular": ["age", "likes"]}, [LINES[0], *lines]).table


def test_a_column_of_an_input_is_no_role(make):
    lines = [["group" if x == "city" else x for x in LINES[0]], *LINES[1:]]
    module = make({"tabular": ["age", "group"]}, lines)
    assert module.table.spec.inputs["tabular"].columns[1].classes == ("Bern", "Ulm")


def test_a_trained_model_knows_its_columns(make):
    """Also where the file has no training rows, as one that is calibrated on."""
    lines = [LINES[0], *(line for line in LINES[1:] if line[-1] != "train")]
    module = make({"tabular": ["age", "city"]}, lines, trained=True)
    assert [module.table.inputs["tabular"][row] for row in (0, 1)] == [
        {"age": "90", "city": "Oslo"},
        {"age": "20", "city": "Bern"},
    ]
    assert module.table.split.tolist() == ["val", "test"]
