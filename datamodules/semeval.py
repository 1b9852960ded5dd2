"""SemEval-2010 task 8: sentences with two marked nouns, and the relation between the nouns."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm.data.columns import read_part
from mm.data.module import DataModule
from mm.data.sources import Source, make_table
from mm.data.table import Cells, Table

COLUMNS = {"text": "text", "target": "relation", "id": "id", "split": "split"}


class SemEvalDataModule(DataModule):
    """SemEval-2010 task 8, with one row per sentence and the directed relation between its two marked nouns.

    A sentence looks like `The <e1>child</e1> was put into the <e2>cradle</e2>.`.

    Args:
        path: Folder with train.txt and test.txt. They consist of blocks of a number and the quoted sentence, the
            relation, and a comment.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a file is missing, or if a block is malformed.
    """

    def __init__(self, path: str, **shared: Any):
        super().__init__(**shared)
        self.path = Path(path)

    def read(self) -> Table:
        cells: Cells = {column: [] for column in COLUMNS.values()}
        for split in ("train", "test"):
            for block in read_blocks(self.path / f"{split}.txt"):
                for column, cell in zip(cells, (*block, split), strict=True):
                    cells[column].append(cell)
        source = Source(str(self.path))
        return make_table([read_part(cells, self.path, COLUMNS, self)], [source], self)


def read_blocks(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the sentence, the relation and the number of each block of a file.

    Raises:
        ValueError: If the file is missing, or if a block is malformed.
    """
    if not path.is_file():
        raise ValueError(
            f"semeval: no file {path}; put train.txt and test.txt of SemEval-2010 task 8 into semeval2010_task8/ of a "
            "folder, and name that with paths.data=FOLDER or MM_DATA=FOLDER"
        )
    sentence: tuple[str, str] | None = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        found = re.fullmatch(r'(\d+)\t"(.*)"\s*', line)
        if sentence is not None and line.strip() and not found:
            yield sentence[1], line.strip(), sentence[0]
            sentence = None
        elif found and sentence is None:
            sentence = found[1], found[2]
        elif sentence is not None or (line.strip() and not line.startswith("Comment")):
            wanted = "the relation" if sentence else "a number, a tab and a quoted sentence"
            raise ValueError(f"{path}: line {number}: got '{line[:60]}', wanted {wanted}")
    if sentence is not None:
        raise ValueError(f"{path}: ends after sentence {sentence[0]}, wanted its relation")
