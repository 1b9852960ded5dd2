"""Noto's emojis: a picture of 72x72 pixels, its name and keywords in Unicode's words, and its group."""

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
JOINER, PICTURE = "\u200d", "\ufe0f"  # between the parts of a sequence; after a sign that is drawn in colours
# Last parts that leave the drawing nearly as it is: woman, man, facing right, black, brown, lime.
SIMILAR = frozenset("♀♂➡⬛🟫🟩")
# A woman's, a man's and a person's emoji are of one figure, and so are those of children, of the old and of royalty.
PERSON = {"👨": "🧑", "👩": "🧑", "👦": "🧒", "👧": "🧒", "👴": "🧓", "👵": "🧓"}
PERSON |= {"🤴": "🫅", "👸": "🫅", "🕺": "💃"}
# Older emojis of one sign, whose variants are sequences.
SPELT = {"👫": "🧑🤝", "👬": "🧑🤝", "👭": "🧑🤝", "💏": "🧑❤💋", "💑": "🧑❤", "👪": "🧑🧒", "🤝": "🫱🫲"}
SPELT |= {"🎅": "🧑🎄", "🤶": "🧑🎄"}


class NotoEmojiDataModule(DataModule):
    """A row per emoji, split so that no family of emojis, as in `family`, is in two splits.

    path: a folder with names.tsv (file, char, skin_tone, en, en_keywords, de, fr, group) and the PNGs in png/; text:
    columns that make up the text, null for none; join: what is put between them; keywords are separated by commas;
    skin_tones: whether training rows are also those of a skin tone; validation and test have none, so that each of
    their emojis has a name of its own; target: `group`, or null for none.
    Errors: ValueError where the files are not there, or a column is none.
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
        """Of names.tsv. Errors: ValueError where it is not there, or lacks a column."""
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
    """The same for emojis whose pictures and names are nearly the same: one in training would give the other away.

    Skin tones, genders, the direction that somebody faces and mere colours are left out; the family is the set of signs
    that remain, so that all families of parents and children are one. The five tones by themselves are "".
    """
    bare = "".join(sign for sign in char if sign not in TONES and sign != PICTURE)
    first, *more = bare.split(JOINER)
    signs = [*SPELT.get(first, first), *(sign for part in more if part not in SIMILAR for sign in part)]
    return "".join(sorted({PERSON.get(sign, sign) for sign in signs}))
