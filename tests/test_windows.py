"""What rows and windows have to do with each other, worked out by hand."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_contracts import WIDTH, build, cases

from mm.contracts import examples
from mm.contracts.head import of_picture, of_text
from mm.encoders.text.hashed_ngrams import TextHashedNgrams
from mm.fusion.sum import SumFusion
from mm.heads.token_classification import TokenClassificationHead
from mm.model import MultimodalModel
from mm.predictions import Span
from mm.predictions.span import IMPOSSIBLE_LOGIT
from mm.types import IGNORE, Batch, Features, Output
from mm.windows import directions, first_windows, side_by_side, windows_of

ROW = torch.tensor([2, 0, 2, 1, 0])  # of five windows


def test_the_first_window_of_each_row():
    assert first_windows(ROW, 3).tolist() == [1, 3, 0]


def features(*present: bool) -> Features:
    mask = torch.tensor(present).unsqueeze(1)
    return Features(
        torch.zeros(len(present), 1, 2), mask, torch.zeros(len(present), 2), torch.zeros(len(present), 1, 3)
    )


def test_windows_tell_of_their_row_by_a_part_of_its_inputs():
    """Row 2 has the sound in its second window only, row 0 in none, row 1 in its only one."""
    inputs = {"audio": features(False, False, True, True, False), "text": features(*[True] * 5)}
    seen, telling = windows_of(inputs, ["audio"], ROW)
    assert seen.tolist() == [False, False, True, True, False]
    assert telling.tolist() == [False, True, True, True, True]  # both of row 0, which has nothing better
    seen, telling = windows_of(inputs, ["audio", "text"], ROW)
    assert seen.all() and telling.all()


def test_tokens_of_a_row_side_by_side():
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]])
    assert side_by_side(tokens, ROW, 3, 3, -1).tolist() == [
        [3, 4, -1, 9, 0, -1],
        [7, 8, -1, -1, -1, -1],
        [1, 2, -1, 5, 6, -1],
    ]


def test_directions_of_rows():
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    rows, mean, present = directions(unit, torch.tensor([True, True, True, False, True]), ROW)
    assert rows.tolist() == [0, 1, 2]
    torch.testing.assert_close(mean, torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5**0.5, 0.5**0.5]]))
    assert present.tolist() == [True, False, True]


TEXT = "Rome is near Ann Lee says Bob Poe"  # eight words, a token each
FIRST = ("ctc", "detection")  # heads of an input that other inputs' windows stand beside


@pytest.mark.parametrize(("case", "file", "overrides"), cases("heads"))
def test_a_row_cut_into_windows_is_predicted_as_in_one(case, file, overrides, tmp_path):
    """Every head, where windows have the same tokens and pooled vector; a window without a token takes no part."""
    node = OmegaConf.load(file)["target_codec"]
    reads = instantiate(node, **{k: v for k, v in {"input": "text", "folder": str(tmp_path)}.items() if k in node})
    known = examples(reads).data
    head: torch.nn.Module = build(file, overrides, classes=list(known.classes), **known.facts).eval()
    torch.manual_seed(1)
    tokens, pooled, position = torch.randn(1, 8, WIDTH), torch.randn(1, WIDTH), torch.rand(1, 8, 2)
    text = {f"text/{key}": x.unsqueeze(0) for key, x in of_text(TEXT).items()}
    text |= {f"text/{key}": x.unsqueeze(0) for key, x in of_picture().items()}
    whole = Features(tokens, torch.ones(1, 8, dtype=torch.bool), pooled, position)

    size = 8 if case.split("-")[0] in FIRST else 4
    count = 8 // size + 1  # one more without a token, of which the vectors are anything
    cut = Features(
        torch.cat([tokens.view(-1, size, WIDTH), torch.randn(1, size, WIDTH)]),
        (torch.arange(count) < count - 1).unsqueeze(1).expand(-1, size),
        torch.cat([pooled.expand(count - 1, -1), torch.randn(1, WIDTH)]),
        torch.cat([position.view(-1, size, 2), torch.rand(1, size, 2)]),
    )
    once = {key: x.expand(count, *x.shape[1:]) for key, x in text.items()}
    fills = {"text/words": -1, "text/places": -1}
    parts = {
        key: torch.cat([text[key].view(-1, size, *text[key].shape[2:]), text[key][:, :size] * 0 + fill])
        for key, fill in fills.items()
    }
    model = MultimodalModel({}, SumFusion(inputs=["text"]), {"y": head}, WIDTH).eval()  # type: ignore[dict-item]

    def say(fused: Features, meta: dict) -> tuple[list, torch.Tensor]:
        batch = Batch({}, {}, {}, torch.zeros(len(fused.mask), dtype=torch.long), meta)
        with torch.no_grad():
            merged = model.merge(Output({"y": head(fused)}, fused, {}), batch)
        return model.decode(merged)["y"], merged.row

    alone, _ = say(whole, text)
    several, rows = say(cut, once | parts)
    assert rows.tolist() == [0]
    assert_alike(several[0], alone[0])


def assert_alike(one: object, other: object) -> None:
    """Fail unless two decoded rows are equal, numbers to five digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert list(one) == list(other)
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_alike(a, b)
    else:
        assert one == (pytest.approx(other, rel=1e-4, abs=1e-6) if isinstance(other, float) else other)


def test_no_answer_is_that_of_the_window_with_the_least_sum():
    """As transformers' SQuAD 2: not the least begin and the least end of different windows (6, 6 would give 0)."""
    tokens = torch.zeros(4, 2)
    tokens[3] = IMPOSSIBLE_LOGIT  # a window without a text
    nothing = torch.tensor([[0.0, 6.0], [6.0, 0.0], [1.0, 4.0], [-9.0, -9.0]])
    merged = Span(tokens, tokens.clone(), nothing).merge(torch.tensor([0, 0, 0, 0]), 1)
    assert merged.nothing.tolist() == [[1.0, 4.0]]
    merged = Span(tokens, tokens.clone(), nothing).merge(torch.tensor([0, 1, 1, 2]), 3)
    assert merged.nothing.tolist() == [[0.0, 6.0], [1.0, 4.0], [-9.0, -9.0]]  # the last row has no window with a text


def test_targets_without_a_head_are_of_the_row():
    """A contrastive task has labels that no head predicts."""
    model = MultimodalModel(
        {"text": TextHashedNgrams(8, 2, 100, 0.0, None, "mean")}, SumFusion(inputs=["text"]), {}, 8
    ).eval()
    x, mask = torch.randint(1, 200, (3, 5)), torch.ones(3, 5, dtype=torch.bool)
    batch = Batch({"text": x}, {"text": mask}, {"label": torch.tensor([4, 4, 5])}, torch.tensor([0, 0, 1]), {})
    merged = model.merge(model(batch.inputs, batch.masks), batch)
    assert merged.targets["label"].tolist() == [4, 5]


def test_targets_of_tokens_are_as_long_as_the_features():
    """Not as long as the input: a sound has 16,000 samples a second, and 50 tokens."""
    head = TokenClassificationHead(classes=["O", "B-x", "I-x"], input="audio", embed_dim=WIDTH)
    model = MultimodalModel({}, SumFusion(inputs=["audio"]), {"y": head}, WIDTH)  # type: ignore[dict-item]
    mask = torch.ones(3, 5, dtype=torch.bool)
    fused = Features(torch.randn(3, 5, WIDTH), mask, torch.randn(3, WIDTH), torch.zeros(3, 5, 2))
    target = torch.tensor([[0, 1, 2, 0]] * 3)
    batch = Batch({}, {"audio": torch.ones(3, 1600, dtype=torch.bool)}, {"y": target}, torch.tensor([0, 0, 1]), {})
    merged = model.merge(Output({"y": head(fused)}, fused, {"audio": fused}), batch)
    assert merged.targets["y"].shape == merged.predictions["y"].logits.shape[:2] == (2, 10)
    assert merged.targets["y"][0].tolist() == [0, 1, 2, 0, IGNORE] * 2
