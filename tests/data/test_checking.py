"""Every fault of a data set is listed in one go."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import mm
from mm.data.checking import check_data
from mm.data.faults import DataFault, write_faults
from mm.targets.regression import RegressionTarget


def write_faulty(folder: Path) -> Path:
    """Write 20 rows. Row 3 lacks its picture, 5 has a damaged one, 7 has no number, 8 has two faults."""
    lines = ["id,split,words,photo,price"]
    for k in range(20):
        Image.new("RGB", (5, 5), (k, k, k)).save(folder / f"{k}.png")
        price = {7: "cheap", 8: "dear"}.get(k, str(k))
        split = "sideways" if k == 11 else "val" if k > 15 else "train"
        lines.append(f"{12 if k == 13 else k},{split},word{k},{k}.png,{price}")
    (folder / "3.png").unlink()
    for k in (5, 8):
        (folder / f"{k}.png").write_bytes(b"\x89PNG no picture")
    (folder / "a.csv").write_text("\n".join(lines))
    return folder / "a.csv"


def faulty(tmp_path: Path, **settings) -> mm.Manifest:
    columns = {"text": "words", "vision": "photo", "target": "price"}
    return mm.Manifest(
        write_faulty(tmp_path), columns=columns, readers={"target": RegressionTarget()}, num_workers=0, **settings
    )


@pytest.mark.parametrize("on_error", ["raise", "drop", "missing"])
def test_every_fault_is_listed(tmp_path, on_error):
    data = faulty(tmp_path, on_error=on_error)
    report = check_data(data)
    assert not report.passed
    assert data.faults == {}
    assert [(fault.row, fault.column) for fault in report.faults] == [
        (3, "photo"), (5, "photo"), (7, "price"), (8, "photo"), (8, "price"), (11, "split"), (13, "id"),
    ]  # fmt: skip
    assert "3.png" in report.faults[0].error
    assert "5.png" in report.faults[1].error
    assert "dear" in report.faults[4].error
    assert report.metrics == {"data/rows": 20, "data/faulty_rows": 6, "data/faults": 7}
    assert "a.csv: 7 faults in 6 of 20 rows" in str(report.table())
    folder = report.save(tmp_path / "report")
    rows = list(csv.DictReader((folder / "errors.csv").read_text().splitlines()))
    assert [(row["row"], row["id"]) for row in rows][:2] == [("3", "3"), ("5", "5")]
    assert json.loads((folder / "metrics.json").read_text())["data/faults"] == 7


def test_rows_without_faults_pass(tmp_path):
    rows = [{"text": f"w{k}", "target": "ab"[k % 2]} for k in range(20)]
    report = check_data(mm.Manifest(rows, num_workers=0))
    assert report.passed
    assert report.summary().endswith("all 20 rows can be read")
    assert report.table().rows == []


def test_rows_of_several_files_have_ids_with_their_file(tmp_path):
    (tmp_path / "a.csv").write_text("text,target\n" + "a,1\nb,2\n" * 9)
    (tmp_path / "b.csv").write_text("text,target\na,1\nb,two\n" + "c,3\n" * 9)
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    data = mm.Manifest(paths, readers={"target": RegressionTarget()}, num_workers=0)
    (fault,) = check_data(data).faults
    assert (fault.row, fault.id, fault.column) == (19, "b.csv:1", "target")


def test_a_table_that_was_read_with_its_faults_is_not_read_again(tmp_path):
    data = faulty(tmp_path, on_error="missing")
    table, known = data.table, dict(data.faults)
    report = check_data(data)
    assert {(fault.row, fault.column) for fault in report.faults} > set(known)
    assert data.faults == known
    assert data.table is table
    (tmp_path / "a.csv").unlink()
    assert check_data(data) == report


def test_text_that_is_no_unicode_is_written_escaped(tmp_path):
    write_faults(tmp_path / "errors.csv", [DataFault(0, "r\udcff", "", "a", "got '\udcff'")])
    assert "r\\udcff" in (tmp_path / "errors.csv").read_text(encoding="utf-8")


def test_what_concerns_the_whole_file_is_an_error(tmp_path):
    data = mm.Manifest(write_faulty(tmp_path), columns={"text": "wordz", "target": "price"}, num_workers=0)
    with pytest.raises(ValueError, match="no column 'wordz'"):
        check_data(data)
