"""Against sentences written on the spot; and the real ones where there are."""

import os
from collections import Counter
from pathlib import Path

import pytest

from mm.datamodules.semeval import SemEvalDataModule

SHARED = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {"val": 0.25, "test": 0.1, "seed": 0}}


def blocks(numbers, end: str = "\n") -> str:
    lines = []
    for n in numbers:
        lines += [f'{n}\t"The <e1>cat</e1> eats the "<e2>mouse {n}</e2>"."', "Eat(e1,e2)" if n % 2 else "Other"]
        lines += ["Comment: no", "", ""]
    return end.join(lines) + end


def write(folder: Path, text: str = "") -> SemEvalDataModule:
    (folder / "train.txt").write_text(blocks(range(1, 9)) + text)
    (folder / "test.txt").write_bytes(blocks((101, 102), "\r\n").encode())
    return SemEvalDataModule(path=str(folder), seed=0, **SHARED)


def test_reads_sentences_relations_and_splits(tmp_path):
    table = write(tmp_path).table
    assert Counter(table.split) == {"train": 6, "val": 2, "test": 2}
    assert table.inputs["text"][0] == 'The <e1>cat</e1> eats the "<e2>mouse 1</e2>".'
    assert table.ids[-1] == "102"
    assert table.spec.targets["target"].classes == ("Eat(e1,e2)", "Other")
    assert [module_cell(table, row) for row in (0, 1, 8, 9)] == ["Eat(e1,e2)", "Other"] * 2


def module_cell(table, row: int) -> str:
    return table.spec.targets["target"].classes[int(table.targets["target"][row])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense\n", "train.txt: line 41: got 'nonsense', wanted a number, a tab and a quoted sentence"),
        ('7\t"a"\n8\t"b"\n', "train.txt: line 42: got '8\t\"b\"', wanted the relation"),
        ('7\t"a"\n', "train.txt: ends after sentence 7, wanted its relation"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        _ = write(tmp_path, text).table


def test_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*train.txt; put train.txt"):
        _ = SemEvalDataModule(path=str(tmp_path), seed=0, **SHARED).table


def test_the_real_ones():
    root = Path(os.environ.get("MM_DATA", "data")) / "semeval2010_task8"
    if not root.is_dir():
        pytest.skip("SemEval-2010 task 8 is not there; set MM_DATA")
    table = SemEvalDataModule(path=str(root), seed=0, **SHARED).table
    assert len(table.ids) == 10_717
    assert (table.split == "test").sum() == 2717
    assert len(table.spec.targets["target"].classes) == 19
    assert all(text.count("<e1>") == text.count("</e2>") == 1 for text in table.inputs["text"])
