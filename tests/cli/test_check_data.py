"""`mm check data` lists every fault, and its exit status says whether there is one."""

import csv
from pathlib import Path

from conftest import TINY


def test_faults_are_listed_and_end_in_status_2(mm, tmp_path: Path):
    rows = [f"word{k},{'many' if k in (4, 9) else k},{'train' if k < 16 else 'val'}" for k in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["words,count,split", *rows]))
    table = ["datamodule=manifest", "datamodule.path=a.csv", "datamodule.columns.text=words"]
    words = [*table, "datamodule.columns.target=count", "model/heads=regression", *TINY]
    words = [word for word in words if ".vision" not in word and ".audio" not in word]
    ran = mm("check", "data", *words, "run=checked")
    assert ran.status == 2, ran.err
    assert "a.csv: 2 faults in 2 of 20 rows" in ran.out
    assert "'many'" in ran.out
    faults = list(csv.DictReader((tmp_path / "outputs/checked/errors.csv").read_text().splitlines()))
    assert [fault["row"] for fault in faults] == ["4", "9"]

    (tmp_path / "a.csv").write_text("\n".join(["words,count,split", *rows]).replace("many", "3"))
    ran = mm("check_data", *words, "run=again")
    assert ran.status == 0, ran.err
    assert "all 20 rows can be read" in ran.out
    assert not (tmp_path / "outputs/again").exists()


def test_help_of_both_spellings(mm):
    texts = [mm(*words, "--help").out for words in (("check", "data"), ("check_data",))]
    assert "list every cell" in texts[0]
    assert texts[0] == texts[1]
