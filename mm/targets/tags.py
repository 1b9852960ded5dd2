"""A tag per word, such as those of named entities."""

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
    """Encode a tag for each word of a text: a list of tags, or tags that blanks separate; words lie between blanks.

    Args:
        input: Name of the input whose words are tagged.
        scheme: "bio", "iob1" (B- only where an entity of the same type went before) or "bioes" (E- ends an entity, S-
            is one of a single word), which become bio; or "plain" for tags that are no entities, such as parts of
            speech.

    Raises:
        ValueError: If the scheme is something else.
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
        """-> of every row (words,) int64; one IGNORE where unlabelled"""
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

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """(words,) -> of every window (T,): its word's tag at a word's first token, IGNORE elsewhere.

        A word that is no token at all, such as a sign that the tokenizer drops, has no place. An entity that was cut at
        its beginning begins with what is left of it.
        Errors: ValueError where the text has more words, or fewer.
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
            # An I- becomes the B- before it, as `learn` has them.
            tags[0][first] = torch.where((tag > 0) & (tag % 2 == 0), tag - 1, tag)
        return tags

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> list[str] | None:
        return None if (target == IGNORE).all() else [data.classes[int(tag)] for tag in target]


def words_of(cell: Any) -> list[str]:
    """The tags of a cell, none where it is empty."""
    return [label_of(tag) for tag in cell] if isinstance(cell, list | tuple) else label_of(cell).split()


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """Errors: ValueError for what is no tag of the scheme, or goes on with what has not begun."""
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
