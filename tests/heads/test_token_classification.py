"""Decoding is the best of all allowed sequences, a word of several windows is told once, and it learns."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from heads.by_heart import learn
from seqeval.metrics import classification_report

from mm.batching import Sample, collate
from mm.heads.token_classification import TokenClassificationHead
from mm.metrics.entities import Entities
from mm.predictions import TokenCategorical
from mm.predictions.token_categorical import allowed, entities, viterbi
from mm.targets.tags import TagTarget
from mm.transforms.text.tokens import TextTransform
from mm.types import IGNORE, Features
from mm.windows import side_by_side

CLASSES = ["O", "B-a", "I-a", "B-b", "I-b"]


def head() -> TokenClassificationHead:
    torch.manual_seed(0)
    return TokenClassificationHead(classes=CLASSES, input="text", embed_dim=8)


def legal(tags: list[str]) -> bool:
    return all(not b.startswith("I-") or a[1:] == b[1:] for a, b in zip(["O", *tags], tags))


@pytest.mark.parametrize("words", [0, 1, 4])
def test_decoding_is_the_best_of_all_allowed_sequences(words):
    for seed in range(20):
        scores = torch.randn(words, 5, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
        every = [path for path in product(range(5), repeat=words) if legal([CLASSES[i] for i in path])]
        best = max(every, key=lambda path: sum(float(scores[i, tag]) for i, tag in enumerate(path)))
        real = torch.ones(1, words, dtype=torch.bool)
        assert viterbi(scores.unsqueeze(0), real, *allowed(CLASSES))[0].tolist() == list(best)


def test_texts_of_any_length_are_decoded_together():
    """As each alone, whatever stands behind its words."""
    scores = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    counts = torch.tensor([5, 0, 1, 3, 4, 2])
    real = torch.arange(5) < counts.unsqueeze(1)
    found = viterbi(scores, real, *allowed(CLASSES))
    for row, count in enumerate(counts.tolist()):
        alone = viterbi(scores[row : row + 1, :count], real[row : row + 1, :count], *allowed(CLASSES))
        assert found[row, :count].tolist() == alone[0].tolist()


def test_plain_tags_are_predicted_word_by_word():
    """Any tag may follow any, and none is an entity."""
    batch, logits = read(["it is  now", "a"])
    made = TokenClassificationHead(classes=["DET", "I-x", "VERB"], input="text", embed_dim=8, scheme="plain")
    first, second = made.decode(TokenCategorical(logits.logits[..., :3]), None, batch.meta)
    assert first["tags"] == ["DET", "I-x", "VERB"]
    assert [(one["type"], one["text"], one["start"]) for one in first["prediction"]] == [
        ("DET", "it", 0),
        ("I-x", "is", 3),
        ("VERB", "now", 7),
    ]
    assert second["tags"] == ["DET"]
    batch.meta["text/words"][0, -1] = -1
    batch.meta["text/words"][0, 7] = -1  # no token tells of the last word
    (cut, other) = made.decode(TokenCategorical(logits.logits[..., :3]), None, batch.meta)
    assert cut["tags"] == ["DET", "I-x", None] and len(cut["prediction"]) == 2
    told, truth = logits.compare([cut, other], [["DET", "VERB", "VERB"], ["DET"]], made.decoding)
    assert told.tolist() == [[0, 1, IGNORE], [0, IGNORE, IGNORE]]  # a word that was not read is wrong
    assert truth.tolist() == [[0, 2, 2], [0, IGNORE, IGNORE]]


def test_entities_of_tags():
    assert entities(["B-a", "I-a", "B-a", "O", "B-b", "I-b", "O"]) == [("a", 0, 1), ("a", 2, 2), ("b", 4, 5)]
    assert entities([]) == entities(["O"]) == []


def read(texts: list[str], **how) -> tuple:
    """A batch, and logits that are certain of a tag per word: its number modulo the classes."""
    tokens = TextTransform("bytes", return_offsets=True, **how)
    rows = [Sample({"text": tokens(text)}, {}, row) for row, text in enumerate(texts)]
    batch = collate(rows, {"text": tokens})
    tag = batch.meta["text/words"].clamp(min=0) % 3
    return batch, TokenCategorical(torch.nn.functional.one_hot(tag.long(), 5) * 20.0)


def test_decode_gives_words_and_characters():
    batch, logits = read(["it is  Zoë now", "a"])
    first, second = head().decode(logits, None, batch.meta)
    assert first["tags"] == ["O", "B-a", "I-a", "O"]
    assert first["prediction"] == [{"type": "a", "text": "is  Zoë", "start": 3, "end": 10}]
    assert second == {"prediction": [], "tags": ["O"], "probability": [pytest.approx(1)]}


def test_a_word_that_no_token_tells_of_has_no_tag():
    batch, logits = read(["a b c d"], max_length=5)  # d is cut off
    words = batch.meta["text/words"]
    batch.meta["text/words"] = torch.where(words == 1, -1, words)  # as if b were no token
    (found,) = head().decode(logits, None, batch.meta)
    assert found["tags"] == ["O", None, "O", None]  # c's I- has lost its B-
    assert found["prediction"] == []


@pytest.mark.parametrize("side", ["truncate", "truncate_left"])
def test_entities_that_were_cut_off_are_missed(side: str) -> None:
    """The measures are seqeval's of the whole texts, where nothing is predicted for what was not read."""
    texts, truth = ["a b c d", "e f"], [["B-a", "I-a", "O", "B-b"], ["B-a", "O"]]
    batch, _ = read(texts, max_length=4, overflow=side)  # "a b " or " c d"
    words = batch.meta["text/words"].long()
    index = torch.tensor([[CLASSES.index(tag) for tag in (*tags, *"OO")[:4]] for tags in truth])
    logits = TokenCategorical(F.one_hot(index.gather(1, words.clamp(min=0)), 5) * 20.0)
    made = head()
    said = made.decode(logits, None, batch.meta)
    metric = Entities(CLASSES)
    metric.update(*logits.compare(said, truth, made.decoding))
    told = [["O" if tag is None else tag for tag in row["tags"]] for row in said]
    wanted = classification_report(truth, told, output_dict=True, zero_division=0)
    found = metric.compute()
    for name in ("precision", "recall", "f1-score"):
        assert float(found[name.partition("-")[0]]) == pytest.approx(wanted["micro avg"][name])
    assert found["recall"] == pytest.approx(2 / 3) and found["support/b"] == 1


def test_windows_say_what_the_whole_text_does():
    text = "one two three four five six seven"
    whole = head().decode(*read([text])[1:], None, read([text])[0].meta)
    batch, logits = read([text, "a b"], max_length=9, overflow="window", window_overlap=0.5)
    assert len(batch.row) > 3
    group = batch.row.unique(return_inverse=True)[1]
    length = batch.masks["text"].shape[1]
    words = side_by_side(batch.meta["text/words"], group, 2, length, -1)
    meta = {"text/words": words, "text/characters": batch.meta["text/characters"][[0, -1]]}
    found = head().decode(logits.merge(group, 2), None, meta)
    assert found[0] == whole[0]
    assert found[1]["tags"] == ["O", "B-a"]


def test_side_by_side_by_hand():
    x = torch.tensor([[1, 2], [3, 4], [5, 6]])
    wanted = [[1, 2, 0, 5, 6, 0], [3, 4, 0, 0, 0, 0]]
    assert side_by_side(x, torch.tensor([0, 1, 0]), 2, 3, 0).tolist() == wanted


def test_it_learns_by_heart():
    tokens, reads = TextTransform("bytes", return_offsets=True), TagTarget("text")
    texts, cells = ["Ann met Bob Lee in Rome", "so it goes"], ["B-a O B-a I-a O B-b", "O O O"]
    values, data, _, _ = reads.fit(cells, torch.ones(2, dtype=torch.bool).numpy(), None)
    reads_ = [tokens(text) for text in texts]
    rows = [Sample({"text": r}, {"t": reads.align(v, r)}, i) for i, (r, v) in enumerate(zip(reads_, values))]
    batch = collate(rows, {"text": tokens})
    torch.manual_seed(0)
    made = TokenClassificationHead(classes=data.classes, input="text", embed_dim=32)
    table = torch.nn.Embedding(2 * 32, 32)
    number = torch.arange(batch.inputs["text"].numel()).view_as(batch.inputs["text"])
    mask = batch.masks["text"]

    def see() -> Features:
        return Features(table(number), mask, torch.zeros(2, 32), torch.zeros(*mask.shape, 2))

    prediction, fused, total, count = learn(made, batch.targets["t"], see, table.parameters())
    assert count == 9
    assert total < 0.01
    said = made.decode(prediction, fused, batch.meta)
    assert [row["tags"] for row in said] == [cell.split() for cell in cells]
    told, truth = prediction.compare(said, [cell.split() for cell in cells], made.decoding)
    assert torch.equal(told, truth)
    assert (truth != IGNORE).sum() == 9


def test_events_have_the_loss_of_the_head():
    logits, target = TokenCategorical(torch.randn(2, 4, 5)), torch.tensor([[0, IGNORE, 3], [IGNORE, 1, IGNORE]])
    found, truth = logits.events(target)
    assert found.shape == (3, 1, 5) and truth.tolist() == [[0], [3], [1]]
    total, count = head().loss(logits, target, None)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(found[:, 0], truth[:, 0]), total / count)


def test_a_temperature_changes_what_a_tag_is_worth_and_not_the_tag():
    batch, _ = read(["a b c d e f"])
    logits = torch.randn(1, batch.masks["text"].shape[1], 5, generator=torch.Generator().manual_seed(0))
    (before,) = head().decode(TokenCategorical(logits), None, batch.meta)
    (after,) = head().decode(TokenCategorical(logits).temper(2.0), None, batch.meta)
    assert after["tags"] == before["tags"]
    told = batch.meta["text/words"][0] >= 0
    worth = (logits[0, told] / 2).softmax(-1)
    assert after["probability"] == pytest.approx([float(w[CLASSES.index(t)]) for w, t in zip(worth, after["tags"])])


def test_sets_by_hand():
    """A text fits as ill as the worst of its words; what BIO decides is in the set, whatever its probability."""
    batch, _ = read(["one two", "three"])
    first = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04], [0.2, 0.1, 0.05, 0.05, 0.6]])  # a text can't begin with an I-b
    p = torch.full((2, batch.meta["text/words"].shape[1], 5), 0.2)
    p[0, batch.meta["text/words"][0] >= 0], p[1, 0] = first, torch.tensor([0.0, 0.05, 0.9, 0.05, 0.0])
    prediction = TokenCategorical(p.log())
    target = torch.full(p.shape[:2], IGNORE)
    target[0, batch.meta["text/words"][0] >= 0], target[1, 0] = torch.tensor([1, 4]), 1
    assert prediction.nonconformity(target, head().decoding).flatten().tolist() == pytest.approx([0.7, 0.95])
    for limit, wanted, size in (
        (0.65, [[["O"], ["I-b", "O"]], [["I-a", "B-a"]]], [1.5, 2]),
        (0.75, [[["O", "B-a"], ["I-b", "O"]], [["I-a", "B-a"]]], [2, 2]),
        (0.95, [[["O", "B-a", "I-a", "B-b"], ["I-b", "O", "B-a", "I-a", "B-b"]], [["I-a", "B-a", "B-b"]]], [4.5, 3]),
    ):
        rows, sizes = prediction.prediction_sets([limit + 1e-6], head().decoding, batch.meta)
        assert [[set(tags) for tags in row["prediction_set"]] for row in rows] == [
            [set(tags) for tags in row] for row in wanted
        ]
        assert rows[0]["prediction_set"][0][0] == "O" and sizes.tolist() == size
        told = head().decode(prediction, None, batch.meta)
        assert all(
            tag in tags
            for row, of in zip(told, rows)
            for tag, tags in zip(row["tags"], of["prediction_set"], strict=True)
        )


def test_weights_of_tags_are_torch_s():
    made = TokenClassificationHead(
        classes=["O", "B-a", "I-a"], input="text", embed_dim=4, counts=[8, 1, 1], class_weights="balanced"
    )
    logits, target = torch.randn(2, 4, 3), torch.tensor([[0, 1, IGNORE, 2], [0, 0, IGNORE, IGNORE]])
    total, count = made.loss(TokenCategorical(logits), target, None)
    wanted = F.cross_entropy(logits.flatten(0, 1), target.flatten(), torch.tensor([10 / 24, 10 / 3, 10 / 3]))
    torch.testing.assert_close(total / count, wanted)
    focal = TokenClassificationHead(classes=["O", "B-a", "I-a"], input="text", embed_dim=4, focal_gamma=2.0)
    certain = 20 * F.one_hot(target.clamp(min=0), 3).float()
    right, wrong = (focal.loss(TokenCategorical(x), target, None)[0] for x in (certain, certain.flip(-1)))
    assert right < 1e-6 < float(wrong)


def test_padding_begins_no_word():
    texts = ["ab cd", "hello world again"]
    batch, _ = read(texts)
    assert batch.meta["text/words"][0].tolist() == [0, -1, -1, 1, -1] + [-1] * 12
    logits = torch.zeros(2, 17, 5)
    logits[0, 0, 1] = logits[0, 3, 0] = 20.0  # ab is B-a, cd is O; the padding says B-b of everything
    logits[0, 5:, 3] = 50.0
    alone, _ = read(texts[:1])
    beside, by_itself = (
        head().decode(TokenCategorical(x), None, of.meta)[0] for x, of in ((logits, batch), (logits[:1, :5], alone))
    )
    assert beside["tags"] == by_itself["tags"] == ["B-a", "O"]
    assert beside["probability"] == pytest.approx(by_itself["probability"])


def test_fewer_tokens_than_tags_are_refused():
    with pytest.raises(ValueError, match="there are 6, but the encoder gives 1; choose one"):
        head().loss(TokenCategorical(torch.zeros(1, 1, 5)), torch.zeros(1, 6, dtype=torch.long), None)
