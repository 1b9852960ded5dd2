"""Dialogues of a table: each row is one turn of a dialogue, with the turns before it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm.data.column_names import check_columns
from mm.data.columns import read_part
from mm.data.module import DataModule
from mm.data.readers.files import read_cells
from mm.data.sources import make_table, sources
from mm.data.table import Cells, Table

TURN = re.compile(r"^\s*([^\W\d][\w .'-]{0,29}):(?:\s+(.*))?$")  # not 10:30, nor http://


class DialogueDataModule(DataModule):
    """Data module in which each row is one turn of a dialogue and the turns before it.

    The preceding turns are the input `text`. The turn itself is the target, or with `reply=True` the second input. All
    rows of one dialogue form a group, which is never divided between splits.

    Args:
        path: Path of a table file, or a list of them; each is a path, or {path: ..., split: ...}.
        column: Column of the dialogues, which have one turn per line, such as `Doctor: How are you?`.
        speaker: Speaker whose turns are predicted; None: all speakers.
        history: Maximum number of preceding turns that are read, with the names of their speakers.
        reply: Whether the turn is an input, `reply`, for contrastive training with the preceding turns, instead of the
            target.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If `history` is below 1, if the column does not exist, or if no turn of the speaker follows another
            turn.
    """

    def __init__(self, path: Any, column: str, speaker: str | None, history: int, reply: bool, **shared: Any):
        super().__init__(**shared)
        if history < 1:
            raise ValueError(f"datamodule.history: got {history}, wanted at least 1 turn")
        self.sources = sources(path, "split")
        self.column = column
        self.speaker = speaker
        self.history = history
        self.reply = reply

    def read(self) -> Table:
        inputs = {"text": {"column": "history", "modality": "text"}}
        columns: dict[str, Any] = {"inputs": inputs, "id": "id", "group": "group"}
        if self.reply:
            inputs["reply"] = {"column": "turn", "modality": "text"}
        else:
            columns["target"] = "turn"
        parts = []
        for source in self.sources:
            path = Path(source.path)
            cells = read_cells(path)
            check_columns(cells, [self.column], path, self.trained)
            found = self.turns(cells[self.column], path)
            if source.split is not None:
                found["split"] = [source.split] * len(found["id"])
            parts.append(read_part(found, path, columns, self))
        return make_table(parts, self.sources, self)

    def turns(self, dialogues: Sequence[Any], path: Path) -> Cells:
        """Split dialogues into the columns history, turn, id and group, with one cell per predicted turn.

        Args:
            dialogues: Cells of the dialogue column.
            path: Path of the table, for the error message.

        Raises:
            ValueError: If no turn of the speaker follows another turn.
        """
        cells: Cells = {name: [] for name in ("history", "turn", "id", "group")}
        speakers: dict[str, int] = {}
        for number, dialogue in enumerate(dialogues):
            said = split_turns(str(dialogue or ""))
            for i, (speaker, text) in enumerate(said):
                speakers[speaker] = speakers.get(speaker, 0) + 1
                if i and text and self.speaker in (None, speaker):
                    before = said[max(0, i - self.history) : i]
                    row = "\n".join(f"{one}: {words}" for one, words in before), text, f"{number}-{i}", str(number)
                    for name, cell in zip(cells, row, strict=True):
                        cells[name].append(cell)
        if not cells["id"]:
            told = ", ".join(sorted(speakers, key=lambda one: -speakers[one])[:5]) or "nobody"
            raise ValueError(f"{path}: column '{self.column}': no turn of '{self.speaker}' after another; {told} speak")
        return cells


def split_turns(dialogue: str) -> list[tuple[str, str]]:
    """Split a dialogue into pairs of speaker and text, in order.

    A line without the name of a speaker continues the turn before it.
    """
    found: list[tuple[str, str]] = []
    for line in dialogue.splitlines():
        named = TURN.match(line)
        if named:
            found.append((named[1].strip(), (named[2] or "").strip()))
        elif line.strip() and found:
            speaker, text = found[-1]
            found[-1] = speaker, f"{text} {line.strip()}".strip()
    return found
