"""Target codec for tagging: one tag per word, such as the tags of named entities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import label_of
from mm.cells.classes import ClassIndex, class_number, sort_classes
from mm.configurable import Configurable
from mm.messages import listing
from mm.types import IGNORE, EncodedInput, EncodedTarget, TargetData

SCHEMES = ("bio", "iob1", "bioes", "plain")


class TagTarget(Configurable):
    """Encode one tag per word of a text, for example for named entity recognition or part-of-speech tagging.

    A cell is a list of tags, or a text of tags that are separated by blanks. The words of the text are also separated
    by blanks.

    Args:
        input: Name of the text input whose words are tagged.
        scheme: Tagging scheme of the cells: "bio", "iob1", "bioes" or "plain". In "iob1", B- is used only if an entity
            of the same type precedes. In "bioes", E- ends an entity and S- is an entity of a single word. Both are
            converted to "bio". "plain" is for tags that are not entities, such as parts of speech.

    Raises:
        ValueError: If the scheme is unknown.
    """

    kind = "tags"
    needs = ("text", "return_offsets")
    texts = ("Rome is near Ann Lee", "so what", "says Bob Lee", "New York", "it is raining")
    examples = ("B-place O O B-person I-person", "O O", "O B-person O", "B-place I-place", "O O O")

    def __init__(self, input: str, scheme: str = "bio"):
        if scheme not in SCHEMES:
            raise ValueError(f"target_codec.scheme: got '{scheme}', wanted one of {', '.join(SCHEMES)}")
        self.input = input
        self.scheme = scheme

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are one tensor (words,) int64 of class indices per row.

        An unlabelled row has a single IGNORE.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; tags and counts are those of the training rows.
            known: Target data of a trained model, whose tags are used instead; None: there is no such model.

        Raises:
            ValueError: If the training rows have no tag, or, unless the scheme is "plain", no entity.
        """
        rows: list[list[str]] = []
        faults: dict[int, str] = {}
        for row, cell in enumerate(cells):
            try:
                tags = words_of(cell)
                rows.append(tags if self.scheme == "plain" else to_bio(tags, self.scheme))
            except ValueError as error:
                rows.append([])
                faults[row] = str(error)
        if known is None and self.scheme == "plain":
            classes = sort_classes({tag for row in np.flatnonzero(train) for tag in rows[row]})
            of = "training rows have"
        elif known is None:
            types = {tag[2:] for row in np.flatnonzero(train) for tag in rows[row] if tag != "O"}
            classes, of = ["O", *(f"{x}-{kind}" for kind in sorted(types) for x in "BI")], "training rows have"
        else:
            classes, of = list(known.classes), "the model knows"
        if known is None and not train[list(faults)].any():
            self.check_classes(classes)
        index = ClassIndex(classes)
        values = []
        for row, tags in enumerate(rows):
            try:
                found = [class_number(tag, index, of) for tag in tags]
            except ValueError as error:
                faults[row], found = str(error), []
            values.append(torch.tensor(found or [IGNORE]))
        counts = torch.zeros(len(classes), dtype=torch.long)
        for row in np.flatnonzero(train):
            counts += torch.bincount(values[row][values[row] != IGNORE], minlength=len(classes))
        facts = {"counts": counts.tolist(), "input": self.input, "scheme": "plain" if self.scheme == "plain" else "bio"}
        return EncodedTarget(values, TargetData(kind=self.kind, classes=tuple(classes), facts=facts), faults)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Check that the training rows have a tag, or, of entities, a tag other than O.

        Args:
            classes: The tags of the training rows.

        Raises:
            ValueError: If they have none.
        """
        if not classes:
            raise ValueError("no training row has a tag, wanted one per word; look at datamodule.columns.target")
        if self.scheme != "plain" and list(classes) == ["O"]:
            raise ValueError(
                "no training row has an entity (every tag is O), wanted tags such as B-TYPE and I-TYPE; look at "
                "datamodule.columns.target and .split, or set model.heads.NAME.target_codec.scheme=plain for tags that "
                "are no entities"
            )

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """Return for each window a tensor (T,) with the tag of each word at its first token, and IGNORE elsewhere.

        A word without tokens, for example a sign that the tokenizer drops, is skipped. If the beginning of an entity
        was truncated, its first remaining word gets the B- tag.

        Args:
            target: Class index of the tag of each word, (words,).
            read: The encoded text, whose meta has the word of each token.

        Raises:
            ValueError: If the number of words of the text differs from the number of tags.
        """
        if (target == IGNORE).all():
            return [torch.full((len(meta["words"]),), IGNORE) for meta in read.meta]
        words = len("".join(map(chr, read.meta[0]["characters"].tolist())).split())
        if words != len(target):
            raise ValueError(f"{len(target)} tags, but the text has {words} words (what lies between blanks)")
        tags = [torch.where(m["words"] >= 0, target[m["words"].clamp(min=0).long()], IGNORE) for m in read.meta]
        first = (read.meta[0]["words"] >= 0).nonzero().flatten()[:1]
        if self.scheme != "plain" and read.cut and len(first) and read.meta[0]["words"][first] > 0:
            tag = tags[0][first]
            # The class index of a B- tag is that of its I- tag minus 1.
            tags[0][first] = torch.where((tag > 0) & (tag % 2 == 0), tag - 1, tag)
        return tags

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> list[str] | None:
        return None if (target == IGNORE).all() else [data.classes[int(tag)] for tag in target]


def words_of(cell: Any) -> list[str]:
    """Return the tags of a cell; an empty cell has no tags."""
    return [label_of(tag) for tag in cell] if isinstance(cell, list | tuple) else label_of(cell).split()


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """Convert tags of a scheme to BIO.

    Args:
        tags: Tags of the words of a text.
        scheme: "bio", "iob1" or "bioes".

    Raises:
        ValueError: If a tag does not belong to the scheme, or if an I- or E- tag continues no entity.
    """
    letters = "BIOES" if scheme == "bioes" else "BIO"
    found: list[str] = []
    for before, tag in zip(["O", *tags], tags):
        letter, _, kind = tag.partition("-")
        inside = before[:1] in ("B", "I") and before[2:] == kind
        if tag != "O" and (letter not in letters or letter == "O" or not kind):
            wanted = listing(["O", *(f"{x}-TYPE" for x in letters.replace("O", ""))])
            raise ValueError(
                f"got the tag '{tag}', wanted {wanted}; its scheme is model.heads.NAME.target_codec.scheme, plain for "
                "tags that are no entities, such as parts of speech"
            )
        if scheme != "iob1" and letter in "IE" and not inside:
            other = (
                "set model.heads.NAME.target_codec.scheme=iob1, by which it begins one, or " if scheme == "bio" else ""
            )
            raise ValueError(f"got the tag '{tag}' where no '{kind}' goes before; {other}mend the tags")
        begins = letter in "BS" or (scheme == "iob1" and not inside)
        found.append(tag if tag == "O" else f"{'B' if begins else 'I'}-{kind}")
    return found
