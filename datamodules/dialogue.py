"""Dialogues of a table, turn by turn: what was said before, and what is said next."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm.data.columns import check_columns, read_part
from mm.data.module import DataModule
from mm.data.readers.files import read_cells
from mm.data.sources import make_table, sources
from mm.data.table import Cells, Table

TURN = re.compile(r"^\s*([^\W\d][\w .'-]{0,29}):(?:\s+(.*))?$")  # not 10:30, nor http://


class DialogueDataModule(DataModule):
    """A row is one turn of a dialogue and those before it; rows of one dialogue are a group.

    path: a table, or several: each a path, or {path: ..., split: ...}; column: of the dialogues, a turn a line, such as
    `Doctor: How are you?`; speaker: only its turns are told, None for all; history: turns before it that are read, the
    speakers' names among them; reply: whether the turn is an input as well, `reply`, which history is brought close to.
    Errors: ValueError where there is no such column, or no turn of the speaker's.
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
        """-> columns history, turn, id, group"""
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
    """-> (speaker, what is said) in order; a line without a name goes on with the turn before"""
    found: list[tuple[str, str]] = []
    for line in dialogue.splitlines():
        named = TURN.match(line)
        if named:
            found.append((named[1].strip(), (named[2] or "").strip()))
        elif line.strip() and found:
            speaker, text = found[-1]
            found[-1] = speaker, f"{text} {line.strip()}".strip()
    return found
