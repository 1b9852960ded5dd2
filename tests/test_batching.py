import pickle

import torch

from mm.batching import Sample, collate
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform
from mm.types import EncodedInput as Read


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values)


TRANSFORMS = {"text": TextTransform("bytes"), "vision": ImageTransform((2, 2), 1), "audio": AudioTransform(20)}


def test_by_hand() -> None:
    image = torch.full((1, 2, 2), 0.5)
    samples = [
        Sample(
            {
                "text": Read([ids(5, 6, 7)], False),
                "vision": None,
                "audio": Read([torch.ones(1)], False),
            },
            {"y": ids(1)[0]},
            4,
        ),
        Sample({"text": None, "vision": Read([image], False), "audio": None}, {"y": ids(0)[0]}, 2),
        Sample({"text": None, "vision": None, "audio": None}, {"y": ids(-100)[0]}, -1),
    ]
    batch = collate(samples, TRANSFORMS)
    assert batch.inputs["text"].tolist() == [[5, 6, 7], [0, 0, 0], [0, 0, 0]]
    assert batch.masks["text"].tolist() == [[True] * 3, [False] * 3, [False] * 3]
    assert batch.masks["vision"].tolist() == [[False], [True], [False]]
    assert batch.inputs["vision"][1].eq(0.5).all()
    assert not batch.inputs["vision"][0].any()
    assert batch.inputs["audio"].shape == (3, 2)  # the filler is a tenth of a second
    assert batch.masks["audio"].tolist() == [[True, False], [False] * 2, [False] * 2]
    assert batch.targets["y"].tolist() == [1, 0, -100]
    assert batch.row.tolist() == [4, 2, -1]
    assert {m.dtype for m in batch.masks.values()} == {torch.bool}
    assert batch.row.dtype == torch.int64


def test_windows_become_rows_of_their_sample() -> None:
    """Two windows of text beside one picture and three windows of sound; a sample of one window follows."""
    image = torch.full((1, 2, 2), 0.5)
    sounds = [torch.full((4,), float(k)) for k in (1, 2, 3)]
    samples = [
        Sample(
            {
                "text": Read([ids(1, 2), ids(2, 3)], False),
                "vision": Read([image], False),
                "audio": Read(sounds, False),
            },
            {"y": torch.tensor([1.0, 2.0])},
            7,
        ),
        Sample({"text": Read([ids(9)], False), "vision": None, "audio": None}, {"y": torch.tensor([3.0, 4.0])}, 8),
    ]
    batch = collate(samples, TRANSFORMS)
    assert batch.row.tolist() == [7, 7, 7, 8]
    assert batch.inputs["text"].tolist() == [[1, 2], [2, 3], [0, 0], [9, 0]]
    assert batch.masks["text"].tolist() == [[True, True], [True, True], [False, False], [True, False]]
    assert batch.masks["vision"].squeeze(1).tolist() == [True, True, True, False]
    assert batch.inputs["audio"][:3, 0].tolist() == [1, 2, 3]
    assert batch.masks["audio"].sum(1).tolist() == [4, 4, 4, 0]
    assert batch.targets["y"].tolist() == [[1, 2]] * 3 + [[3, 4]]


def test_transforms_travel_to_workers() -> None:
    for transform in TRANSFORMS.values():
        again = pickle.loads(pickle.dumps(transform))
        assert torch.equal(again.filler, transform.filler)


def test_a_row_of_which_nothing_was_found_is_a_row() -> None:
    nothing = Read([], False)
    batch = collate([Sample({"text": nothing, "audio": nothing}, {}, 3)], {n: TRANSFORMS[n] for n in ("text", "audio")})
    assert batch.row.tolist() == [3]
    assert not any(mask.any() for mask in batch.masks.values())


def test_windows_say_which_sample_they_are_of() -> None:
    """A row may be drawn twice into a batch: its number does not tell the windows of one draw from the other's."""
    tokens = TextTransform("bytes", 4, "window", 0.0)
    texts = ["abcdefgh", "ab", "abcdefgh"]
    batch = collate([Sample({"text": tokens(text)}, {}, row) for text, row in zip(texts, (5, 6, 5))], {"text": tokens})
    assert batch.row.tolist() == [5, 5, 6, 5, 5]
    assert batch.meta["sample"].tolist() == [0, 0, 1, 2, 2]
    assert not collate([Sample({"text": tokens("ab")}, {}, 0)], {"text": tokens}).meta
