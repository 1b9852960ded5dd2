"""Noto emojis: an image of 72x72 pixels for each emoji, with its name and keywords from Unicode, and its group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.readers.files import read_cells
from mm.data.splitting import make_split
from mm.data.table import Cells, Table
from mm.data.targets import add_target
from mm.messages import near
from mm.types import DataSpec, InputData

TEXTS = ("en", "en_keywords", "de", "fr")
COLUMNS = ("file", "char", "skin_tone", "group", *TEXTS)
TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
JOINER, PICTURE = "\u200d", "\ufe0f"  # zero-width joiner between the parts of a sequence; variation selector for colour
# Later parts of a sequence that hardly change the drawing: woman, man, facing right, black, brown, lime.
SIMILAR = frozenset("♀♂➡⬛🟫🟩")
# The emojis of a woman, a man and a person show the same figure; so do those of children, old people and royalty.
PERSON = {"👨": "🧑", "👩": "🧑", "👦": "🧒", "👧": "🧒", "👴": "🧓", "👵": "🧓"}
PERSON |= {"🤴": "🫅", "👸": "🫅", "🕺": "💃"}
# Older emojis of a single character whose variants are sequences.
SPELT = {"👫": "🧑🤝", "👬": "🧑🤝", "👭": "🧑🤝", "💏": "🧑❤💋", "💑": "🧑❤", "👪": "🧑🧒", "🤝": "🫱🫲"}
SPELT |= {"🎅": "🧑🎄", "🤶": "🧑🎄"}


class NotoEmojiDataModule(DataModule):
    """Noto emojis, with one row per emoji, split such that no family of similar emojis (see `family`) is in two splits.

    Args:
        path: Folder with names.tsv (columns file, char, skin_tone, en, en_keywords, de, fr, group) and the PNG files in
            png/.
        text: Columns whose cells are joined to the text input; None: no text input. Keywords are separated by commas.
        join: Separator between the cells of these columns.
        skin_tones: Whether emojis with a skin tone are among the training rows. Validation and test have none, so that
            each of their emojis has a unique name.
        target: "group", or None for no target.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a file is missing or lacks a column, or if an argument has an unsupported value.
    """

    def __init__(
        self, path: str, text: Sequence[str] | None, join: str, skin_tones: bool, target: str | None, **shared: Any
    ):
        super().__init__(**shared)
        for column in text or ():
            if column not in TEXTS:
                raise ValueError(
                    f"datamodule.text: got '{column}', wanted some of {', '.join(TEXTS)}{near(column, TEXTS)}"
                )
        if target not in ("group", None):
            raise ValueError(f"datamodule.target: got '{target}', wanted group or null")
        self.path = Path(path)
        self.text = list(text or ())
        self.join = join
        self.skin_tones = skin_tones
        self.target = target

    def read(self) -> Table:
        cells = self.cells()
        tone = np.array(cells["skin_tone"]) != "0"
        families = [family(char) for char in cells["char"]]
        split = np.full(len(tone), "", dtype=object)
        split[~tone] = make_split(int((~tone).sum()), self.split, groups=np.array(families)[~tone])
        training = {name for name, where in zip(families, split) if where == "train"}
        if self.skin_tones:
            split[tone & np.array([name in training for name in families])] = "train"
        inputs: dict[str, Any] = {"vision": [str(self.path / "png" / name) for name in cells["file"]]}
        spec = {"vision": InputData(modality="vision", size=(72, 72), channels=3)}
        if self.text:
            parts = [[cell.replace("|", ", ") for cell in cells[column]] for column in self.text]
            inputs["text"] = [self.join.join(filter(None, row)) for row in zip(*parts)]
            spec["text"] = InputData(modality="text")
        table = Table(
            inputs=inputs,
            targets={},
            ids=[name.removesuffix(".png") for name in cells["file"]],
            split=split,
            spec=DataSpec(inputs=spec, targets={}),
            source="noto_emoji",
            columns={"vision": "file", "text": "+".join(self.text), "target": str(self.target)},
            folders=[str(self.path / "png")],
        )
        if self.target:
            add_target(table, "target", [self.target] * len(tone), cells[self.target], self)
        return table

    def cells(self) -> Cells:
        """Read the cells of names.tsv.

        Raises:
            ValueError: If the files are missing, or if names.tsv lacks a column.
        """
        path = self.path / "names.tsv"
        if not path.is_file() or not (self.path / "png").is_dir():
            raise ValueError(
                f"noto_emoji: {self.path} lacks names.tsv or png/; put them into noto_emoji/ of one folder, and name "
                "that with paths.data=FOLDER or MM_DATA=FOLDER"
            )
        cells = read_cells(path)
        for column in COLUMNS:
            if column not in cells:
                raise ValueError(f"{path}: no column '{column}'; there are {', '.join(cells)}")
        return cells


def family(char: str) -> str:
    """Return a key that is the same for emojis with nearly the same picture and name.

    A split must not divide a family, because a training row would give away a test row. Skin tones, genders, facing
    directions and mere colours are ignored. The key consists of the set of remaining characters, so all families of
    parents and children share one key. The key of the five skin tones themselves is "".

    Args:
        char: Characters of the emoji.
    """
    bare = "".join(sign for sign in char if sign not in TONES and sign != PICTURE)
    first, *more = bare.split(JOINER)
    signs = [*SPELT.get(first, first), *(sign for part in more if part not in SIMILAR for sign in part)]
    return "".join(sorted({PERSON.get(sign, sign) for sign in signs}))
