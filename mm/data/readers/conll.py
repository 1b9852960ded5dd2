"""Files of a word and its tag a line -> columns of cells."""

from pathlib import Path

from mm.data.readers.encoding import check_encoding
from mm.data.table import Cells


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
