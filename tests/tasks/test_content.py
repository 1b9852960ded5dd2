"""Equal content has one digest, whatever it is padded to, beside what it stands, and in whichever batch."""

import torch

from mm.tasks.content import content
from mm.types import Batch, Features


def batch_of(texts: list[list[int]], rows: list[int], length: int, pictures: torch.Tensor | None = None) -> Batch:
    ids = torch.full((len(texts), length), 77)  # padding need not be 0
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[i, : len(text)] = True
    pictures = torch.zeros(len(texts), 1, 2, 2) if pictures is None else pictures
    seen = torch.ones(len(texts), 1, dtype=torch.bool)
    return Batch({"text": ids, "vision": pictures}, {"text": mask, "vision": seen}, {}, torch.tensor(rows), {})


def digests(batch: Batch) -> torch.Tensor:
    return content(batch, [["text"], ["vision"]])[1]


def test_texts() -> None:
    found = digests(batch_of([[1, 2], [1, 2], [2, 1], [1, 2, 0], [1]], [0, 1, 2, 3, 4], 4))[:, 0].tolist()
    assert found[0] == found[1] and len(set(found)) == 4
    longer = digests(batch_of([[1, 2], [7] * 9], [5, 6], 9))[:, 0].tolist()
    assert longer[0] == found[0]


def test_pictures_and_features() -> None:
    pictures = torch.randn(3, 1, 2, 2)
    pictures[1] = pictures[0]
    batch = batch_of([[1]] * 3, [0, 1, 2], 1, pictures)
    one, other, third = digests(batch)[:, 1].tolist()
    assert one == other != third
    tokens = torch.randn(3, 4, 5)
    tokens[2] = tokens[0]
    features = Features(tokens, torch.ones(3, 4, dtype=torch.bool), tokens.mean(1), torch.zeros(3, 4, 2))
    batch = Batch({"text": features}, {"text": features.mask}, {}, torch.arange(3), {})
    one, other, third = content(batch, [["text"]])[1].flatten().tolist()
    assert one == third != other


def test_windows_and_filler() -> None:
    """Row 0 has two windows of text, row 1 one of the same picture: the picture stands beside each window."""
    batch = batch_of([[1, 2], [3], [1, 2], []], [0, 0, 1, -1], 2)
    rows, found = content(batch, [["text"], ["vision"], ["text", "vision"]])
    assert rows.tolist() == [0, 1]
    assert found[0, 0] != found[1, 0] and found[0, 1] == found[1, 1] and found[0, 2] != found[1, 2]
