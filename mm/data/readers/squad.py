"""Questions and answers in SQuAD's format -> columns of cells."""

from pathlib import Path
from typing import Any

from mm.data.table import Cells


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
