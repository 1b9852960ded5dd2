"""What is hidden, how often, and that nothing else has influence; the loss beside torch's."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mm.encoders.text.hashed_ngrams import TextHashedNgrams
from mm.encoders.text.transformer import TextTransformer
from mm.fusion.sum import SumFusion
from mm.model import MultimodalModel
from mm.tasks.objectives.masked_lm import MaskedLMObjective, draw
from mm.tasks.pretraining import Pretraining
from mm.tokenizers import TokenVocabulary
from mm.transforms.text.tokens import TextTransform, word_starts
from mm.types import Batch

WORDS = TokenVocabulary(
    1, torch.tensor([0, 2, 3]), torch.tensor([False] * 4 + [True, False] * 48)
)  # even ones begin words


def task(**how) -> Pretraining:
    torch.manual_seed(0)
    encoder = TextTransformer(8, 1, 2, 0.0, None, "mean", "words", 100)
    model = MultimodalModel({"text": encoder}, SumFusion(inputs=["text"]), {}, 8)
    objective = partial(MaskedLMObjective, **({"ratio": 0.15, "whole_words": False} | how))
    made = Pretraining(model, objectives={"words": objective})
    made.objectives["words"].words = {"text": WORDS}  # type: ignore[attr-defined]
    return made


def batch(rows: int = 64, length: int = 42) -> Batch:
    x = torch.randint(4, 100, (rows, length), generator=torch.Generator().manual_seed(1))
    x[:, 0], x[:, -1] = 2, 3
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1, 11:] = False
    mask[2] = False
    return Batch({"text": x * mask}, {"text": mask}, {}, torch.arange(rows), {})


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_part_of_each_text_is_hidden_and_nothing_special():
    b = batch(2000)
    x, mask = b.inputs["text"], b.masks["text"]
    hidden = draw(x, mask, WORDS, 0.15, False, drawn())
    assert not hidden[:, [0, -1]].any()
    assert hidden.sum(1)[[0, 1, 2]].tolist() == [6, 2, 0]  # of 40, of 10, of none
    assert (hidden[3:, 1:-1].float().mean(0) - 0.15).abs().max() < 0.04  # every place alike
    assert draw(x[:1, :3], mask[:1, :3], WORDS, 0.01, False, drawn()).sum() == 1


def test_whole_words():
    b = batch(300)
    x, mask = b.inputs["text"], b.masks["text"]
    hidden = draw(x, mask, WORDS, 0.15, True, drawn())
    word = (WORDS.begins[x] & ~torch.isin(x, WORDS.special)).cumsum(1)
    for row in range(300):
        if mask[row].any():
            inner = mask[row] & ~torch.isin(x[row], WORDS.special)
            for number in word[row][inner].unique():
                assert len(hidden[row][inner & (word[row] == number)].unique()) == 1
    assert hidden[3:, 1:-1].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not hidden[:, [0, -1]].any()
    one = torch.tensor([[2, 4, 5, 7, 9, 3]])  # a word alone is hidden, however few of its tokens that would be
    assert draw(one, one > 0, WORDS, 0.01, True, drawn()).tolist() == [[False, True, True, True, True, False]]


def test_eighty_ten_ten():
    made = task().objectives["words"]
    b = batch(3000)
    ((shown, hidden),) = made.corrupt(b, drawn()).values()
    x = b.inputs["text"]
    assert torch.equal(shown[~hidden], x[~hidden])
    is_mask, same = shown[hidden] == 1, shown[hidden] == x[hidden]
    assert is_mask.float().mean() == pytest.approx(0.8, abs=0.01)
    assert same.float().mean() == pytest.approx(0.1 + 0.1 / 100, abs=0.01)
    assert (shown[hidden][~is_mask & ~same].bincount(minlength=100) > 0).sum() > 90  # any other


def test_loss_is_of_the_hidden_tokens_alone():
    made = task().requires_grad_(False).eval()
    b = batch(6)
    ((total, count),) = made.measure(b, drawn()).values()
    objective = made.objectives["words"]
    ((shown, hidden),) = objective.corrupt(b, drawn()).values()
    tokens = made.model.encode({"text": shown}, b.masks)["text"].tokens
    decoder, table = objective.decoders["text"], made.model.encoders["text"].embed.weight
    wanted = 0.0
    for row, place in hidden.nonzero().tolist():
        logits = decoder.mlp(tokens[row, place]) @ table.T + decoder.bias
        wanted += float(F.cross_entropy(logits, b.inputs["text"][row, place]))
    assert float(total) == pytest.approx(wanted, rel=1e-4)
    assert int(count) == int(hidden.sum())


def test_every_weight_learns_and_nobody_is_no_fault():
    made = task()
    made.measure(batch(), drawn())["words"][0].backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())
    b = batch(4)
    nothing = b._replace(masks={"text": b.masks["text"] & False})
    ((total, count),) = made.measure(nothing, drawn()).values()
    assert (float(total.detach()), int(count)) == (0.0, 0)


def test_what_a_tokenizer_tells(tmp_path):
    from mm.tokenizers import train_tokenizer

    train_tokenizer(["one two three"] * 9, "wordpiece", 60).save_pretrained(tmp_path)
    told = TextTransform(str(tmp_path), marker_tokens={"<e>": 70}).vocabulary()
    assert (told.mask, told.special.tolist()) == (4, [0, 1, 2, 3, 4, 70])
    bare = TextTransform("bytes").vocabulary()
    assert bare.begins.nonzero().flatten().tolist() == [10, 11, 33]
    assert word_starts(["a", "##b"]).tolist() == [True, False]
    assert word_starts(["\u2581a", "b"]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("encoder", "how", "said"),
    [
        (TextTransformer(8, 1, 2, 0.0, None, "mean"), {"ratio": 1.0}, "got ratio=1.0, wanted one in 0..1"),
        (TextHashedNgrams(8, 2, 50, 0.0, None, "mean"), {}, "TextHashedNgrams of 'text' has no table of them; choose"),
        (TextTransformer(8, 1, 2, 0.0, None, "mean"), {"inputs": ["image"]}, "got the input 'image', which is none of"),
    ],
)
def test_mistakes(encoder, how, said):
    model = MultimodalModel({"text": encoder}, SumFusion(inputs=["text"]), {}, 8)
    with pytest.raises(ValueError, match=said):
        MaskedLMObjective(model, **({"ratio": 0.15, "whole_words": False} | how))
