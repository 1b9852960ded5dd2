"""A class for each token of an input: tags of words, such as named entities by BIO or parts of speech."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm.predictions.base import Decoding, Prediction
from mm.predictions.categorical import lac_scores
from mm.types import IGNORE
from mm.windows import side_by_side


class TokenCategoricalFields(NamedTuple):
    """The tensors of a TokenCategorical."""

    logits: Tensor  # (B, T, C)


class TaggedText(NamedTuple):
    """The W words of one text and their tags."""

    text: str
    places: list[tuple[int, int]]  # of each word, its first character and one after its last
    scores: Tensor  # (W, C) log-probabilities
    missing: Tensor  # (W,) bool, True for a word without a token, which by BIO is an O
    tags: Tensor  # (W,) the most probable tags that the scheme allows


class TokenCategorical(Prediction, TokenCategoricalFields):
    """Logits (B, T, C) of the classes of each token, of which the first token of a word tells that of the word.

    A target is (B, up to T) int64, IGNORE for tokens that begin no word. `meta` has the keys "words" and "characters"
    of the input.
    """

    __slots__ = ()
    calibration = "temperature"
    has_sets = True
    compares_decoded = True

    def merge(self, group: Tensor, count: int) -> "TokenCategorical":
        """Put the tokens of each row's windows side by side. -> (count, W T, C)"""
        return TokenCategorical(side_by_side(self.logits, group, count, self.logits.shape[1], 0.0))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": [{"type", "text", "start", "end"}], "tags", "probability"} per row.

        The prediction lists the entities, or, of plain tags, every word with its tag as type; start and end are
        characters of the text. "tags" and "probability" have the tag of each word and its probability, both None where
        a word has no token, because the text was truncated or the tokenizer drops the word.
        """
        return [decode_text(one, decoding) for one in self.tag_texts(decoding, meta)]

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[Tensor, Tensor]:
        """Compare the tags of whole texts, as seqeval does, and not only of the words that were read.

        A word without a token is predicted as O; of plain tags it has no prediction, and counts as wrong.

        Returns:
            Predicted and true tags as classes, each (N, W) int64, `IGNORE` behind the words of shorter texts, and where
            nothing is predicted.
        """
        index: dict[str | None, int] = {tag: i for i, tag in enumerate(decoding.classes)}
        index[None] = index["O"] if decoding.scheme == "bio" else IGNORE
        device = self.logits.device
        predicted, true = [], []
        for row, tags in zip(rows, truth, strict=True):
            found = [*row["tags"], *[None] * (len(tags) - len(row["tags"]))]
            predicted.append(torch.tensor([index[tag] for tag in found[: len(tags)]]))
            true.append(torch.tensor([index[tag] for tag in tags]))
        if not predicted:
            nothing = torch.zeros(0, 0, dtype=torch.long, device=device)
            return nothing, nothing.clone()
        return pad_sequence(predicted, True, IGNORE).to(device), pad_sequence(true, True, IGNORE).to(device)

    def temper(self, temperature: float) -> "TokenCategorical":
        return TokenCategorical(self.logits.float() / temperature)

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, 1, C) and tags (N, 1) of the N labelled words of all rows."""
        target = pad_to_tokens(target, self.logits)
        words = target != IGNORE
        return self.logits[words].float().unsqueeze(1), target[words].unsqueeze(1)

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the worst score of the true tags of a text's words (N, 1): texts, not words, are exchangeable."""
        target = pad_to_tokens(target, self.logits)
        words = target != IGNORE
        scores = lac_scores(self.logits.flatten(0, 1)).view(self.logits.shape)
        true = scores.gather(2, target.clamp(min=0).unsqueeze(2)).squeeze(2).masked_fill(~words, 0.0)
        return true[words.any(1)].amax(1, keepdim=True)

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return {"prediction_set": [[tag, ...] of each word]} per row, the most probable first; their mean size (B,).

        The predicted tag is in its set, also where BIO, and not its probability, decides it.
        """
        rows, sizes = [], []
        for one in self.tag_texts(decoding, meta):
            inside = lac_scores(one.scores) <= quantiles[0]
            inside[torch.arange(len(one.scores)), one.tags] = True
            order = one.scores.argsort(1, descending=True)
            tags = [[decoding.classes[i] for i in best if row[i]] for best, row in zip(order.tolist(), inside.tolist())]
            rows.append(
                {"prediction_set": [None if missing else some for some, missing in zip(tags, one.missing.tolist())]}
            )
            sizes.append(inside[~one.missing].sum(1).float().mean())
        return rows, torch.stack(sizes).nan_to_num() if sizes else self.logits.new_zeros(0)

    def tag_texts(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[TaggedText]:
        """Return the words and the tags of each row's text."""
        classes = decoding.class_names(self.logits.shape[2])
        input = decoding.tokens_of()
        parts = (self.logits.float(), meta[f"{input}/words"], meta[f"{input}/characters"])
        rows = [score_words(*row, decoding) for row in zip(*parts, strict=True)]
        if not rows:
            return []
        device = self.logits.device
        counts = torch.tensor([len(scores) for _, _, scores, _ in rows], device=device)
        scores = pad_sequence([scores for _, _, scores, _ in rows], batch_first=True)
        real = torch.arange(scores.shape[1], device=device) < counts.unsqueeze(1)
        begins, follows = (x.to(device) for x in transitions(classes, decoding.scheme))
        tags = viterbi(scores, real, begins, follows)
        return [TaggedText(*row, best[: len(row[2])]) for row, best in zip(rows, tags, strict=True)]


def pad_to_tokens(target: Tensor, logits: Tensor) -> Tensor:
    """Pad a target to as many tokens as there are logits. (B, up to T), (B, T, C) -> (B, T)

    Raises:
        ValueError: If there are fewer tokens, as of an encoder that gives one token for a whole text.
    """
    if target.shape[1] > logits.shape[1]:
        raise ValueError(
            f"a tag is predicted for each token of its input, and there are {target.shape[1]}, but the encoder gives "
            f"{logits.shape[1]}; choose one that gives a token for each, such as transformer"
        )
    return F.pad(target, (0, logits.shape[1] - target.shape[1]), value=IGNORE)


def score_words(
    logits: Tensor, words: Tensor, characters: Tensor, decoding: Decoding
) -> tuple[str, list[tuple[int, int]], Tensor, Tensor]:
    """Return text, places, scores and missing of a TaggedText.

    A word may be in several windows, where windows of another input repeat the text: the first of them counts.

    Args:
        logits: (T, C).
        words: (up to T,) index of the word that each token begins, or -1.
        characters: (L,) code points of the text.
        decoding: The classes and the scheme.
    """
    words = F.pad(words, (0, logits.shape[0] - len(words)), value=-1)
    text = "".join(map(chr, characters.tolist())).rstrip("\0")  # padding
    places = [found.span() for found in re.finditer(r"\S+", text)]
    missing = torch.ones(len(places), dtype=torch.bool, device=logits.device)
    missing[words[words >= 0].long()] = False
    scores = logits.new_full((len(places), len(decoding.classes)), -torch.inf)
    if decoding.scheme == "bio":
        scores[missing, decoding.classes.index("O")] = 0
    else:
        scores[missing] = 0
    firsts = dict(reversed([(word, place) for place, word in enumerate(words.tolist()) if word >= 0]))
    scores[[*firsts]] = logits[[*firsts.values()]].log_softmax(-1)
    return text, places, scores, missing


def decode_text(one: TaggedText, decoding: Decoding) -> dict[str, Any]:
    """Return a row as `TokenCategorical.decode` describes it."""
    tags = [decoding.classes[i] for i in one.tags.tolist()]
    chances = one.scores.softmax(-1).gather(1, one.tags.unsqueeze(1)).squeeze(1).tolist()
    missing = one.missing.tolist()
    if decoding.scheme == "bio":
        spans = entities(tags)
    else:
        spans = [(tag, i, i) for i, (tag, absent) in enumerate(zip(tags, missing)) if not absent]
    predicted = [
        {"type": kind, "text": one.text[one.places[a][0] : one.places[b][1]]}
        | {"start": one.places[a][0], "end": one.places[b][1]}
        for kind, a, b in spans
    ]
    known = [None if absent else tag for tag, absent in zip(tags, missing, strict=True)]
    chances = [None if tag is None else chance for tag, chance in zip(known, chances, strict=True)]
    return {"prediction": predicted, "tags": known, "probability": chances}


def allowed(classes: Sequence[str], scheme: str = "bio") -> tuple[Tensor, Tensor]:
    """Return which tags may begin a text (C,), and which may follow which (C, C).

    By BIO an I- needs its B- or I- before; plain tags may stand anywhere.
    """
    inner = [scheme == "bio" and tag.startswith("I-") for tag in classes]
    follows = [[not i or (a != "O" and a[2:] == b[2:]) for b, i in zip(classes, inner)] for a in classes]
    return ~torch.tensor(inner), torch.tensor(follows)


@lru_cache(maxsize=16)
def transitions(classes: tuple[str, ...], scheme: str) -> tuple[Tensor, Tensor]:
    """Return `allowed`, computed once for the classes of a head."""
    return allowed(classes, scheme)


def viterbi(scores: Tensor, real: Tensor, begins: Tensor, follows: Tensor) -> Tensor:
    """Return the most probable allowed tags of each text (Viterbi 1967).

    All texts of a batch are decoded together, word by word, without looking at a value on the device.

    Args:
        scores: Log-probabilities (B, W, C).
        real: (B, W) bool, True for the words of a text, which come first.
        begins: (C,) bool, as of `allowed`.
        follows: (C, C) bool.

    Returns:
        (B, W) tags; of what is not real any.
    """
    if not scores.numel():
        return scores.new_zeros(scores.shape[:2], dtype=torch.long)
    best = scores[:, 0].masked_fill(~begins, -torch.inf)
    stay = torch.arange(scores.shape[2], device=scores.device).expand_as(best)
    back = []
    for score, here in zip(scores[:, 1:].unbind(1), real[:, 1:].unbind(1), strict=True):
        total, before = best.unsqueeze(2).masked_fill(~follows, -torch.inf).max(1)  # (B, C)
        back.append(torch.where(here.unsqueeze(1), before, stay))
        best = torch.where(here.unsqueeze(1), total + score, best)
    path = [best.argmax(1, keepdim=True)]
    for before in reversed(back):
        path.append(before.gather(1, path[-1]))
    return torch.cat(path[::-1], dim=1)


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (type, first word, last word) of each entity that BIO tags name."""
    spans: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("I-") and spans and spans[-1][0] == tag[2:] and spans[-1][2] == i - 1:
            spans[-1] = (tag[2:], spans[-1][1], i)
        elif tag != "O":
            spans.append((tag[2:], i, i))
    return spans
