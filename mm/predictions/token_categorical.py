"""Prediction of one class per token of an input, such as named entities in BIO tags or parts of speech."""

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
    """Tensors of `TokenCategorical`."""

    logits: Tensor  # (B, T, C)


class TaggedText(NamedTuple):
    """The W words of one text with their tags."""

    text: str
    places: list[tuple[int, int]]  # for each word its first character and the character after its last
    scores: Tensor  # (W, C) log-probabilities
    missing: Tensor  # (W,) bool, True for a word without a token, whose tag is O in BIO
    tags: Tensor  # (W,) class indices of the most probable tags that the scheme allows


class TokenCategorical(Prediction, TokenCategoricalFields):
    """Logits (B, T, C) of the classes of each token; the class of a word is that of its first token.

    A target is (B, up to T) int64, with IGNORE for tokens that do not begin a word. `meta` has the keys "words" and
    "characters" of the input.
    """

    __slots__ = ()
    calibration = "temperature"
    has_sets = True
    compares_decoded = True

    def merge(self, group: Tensor, count: int) -> "TokenCategorical":
        """Concatenate the tokens of the W windows of each row: (B, T, C) -> (count, W T, C)."""
        return TokenCategorical(side_by_side(self.logits, group, count, self.logits.shape[1], 0.0))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": [{"type", "text", "start", "end"}, ...], "tags", "probability"} per row.

        The prediction lists the entities or, with the scheme "plain", every word with its tag as its type. "start" is
        the index of the first character in the text and "end" that of the character after the last. "tags" and
        "probability" list the tag of each word and its probability. Both are None for a word without a token, because
        the text was truncated or the tokenizer drops the word.
        """
        return [decode_text(one, decoding) for one in self.tag_texts(decoding, meta)]

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted and the true tags of complete texts, including words that were truncated.

        As in seqeval, all words count. A word without a token is predicted as O in BIO. With the scheme "plain" it has
        no prediction and counts as wrong.

        Args:
            rows: Decoded rows that are labelled, as `decode` returns them.
            truth: Tags of the words of each row.
            decoding: The decoding settings.

        Returns:
            Class indices of the predicted and of the true tags, (N, W) int64 each. IGNORE is used as padding of shorter
            texts and for words without a prediction.
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
        """Return the logits (N, 1, C) and the tags (N, 1) of the N labelled words of all rows."""
        target = pad_to_tokens(target, self.logits)
        words = target != IGNORE
        return self.logits[words].float().unsqueeze(1), target[words].unsqueeze(1)

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the highest nonconformity score among the true tags of each labelled text, (N, 1).

        There is one score per text, because texts are exchangeable and the words of a text are not.
        """
        target = pad_to_tokens(target, self.logits)
        words = target != IGNORE
        scores = lac_scores(self.logits.flatten(0, 1)).view(self.logits.shape)
        true = scores.gather(2, target.clamp(min=0).unsqueeze(2)).squeeze(2).masked_fill(~words, 0.0)
        return true[words.any(1)].amax(1, keepdim=True)

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return {"prediction_set": [[tag, ...], ...]} per row, and the mean size of the sets of its words, (B,).

        The prediction set has one list of tags per word, sorted by descending probability. The list always contains the
        predicted tag, even if it is predicted because of the BIO constraints and not because of its probability. A word
        without a token has None instead of a list.

        Args:
            quantiles: One conformal quantile. A tag is in the set of a word if its score does not exceed it.
            decoding: The decoding settings, with the names of the tags.
            meta: Tensors of the batch that decoding needs, by name.
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
        """Return the words of each text and their most probable tags that the scheme allows."""
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
    """Pad a target with IGNORE to the number of tokens of the logits: (B, up to T) -> (B, T).

    Args:
        target: Target of each token.
        logits: Logits (B, T, C).

    Raises:
        ValueError: If the target has more tokens than the logits, for example because the encoder returns one token for
            the whole text.
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
    """Return the text, places, scores and missing words of a `TaggedText`.

    If a word is in several windows, because the text is repeated in the windows of another input, its first occurrence
    is used.

    Args:
        logits: Logits of the tokens, (T, C).
        words: Index of the word that each token begins, or -1, (up to T,).
        characters: Unicode code points of the text, (L,).
        decoding: The decoding settings, with the classes and the scheme.
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
    """Return the decoded row of a text, as described in `TokenCategorical.decode`."""
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
    """Return which tags may begin a text, (C,), and which tag may follow which, (C, C).

    In BIO an I- tag must follow a B- or I- tag of the same type. Plain tags may follow each other in any order.
    """
    inner = [scheme == "bio" and tag.startswith("I-") for tag in classes]
    follows = [[not i or (a != "O" and a[2:] == b[2:]) for b, i in zip(classes, inner)] for a in classes]
    return ~torch.tensor(inner), torch.tensor(follows)


@lru_cache(maxsize=16)
def transitions(classes: tuple[str, ...], scheme: str) -> tuple[Tensor, Tensor]:
    """Return the result of `allowed`, cached for the classes of a head."""
    return allowed(classes, scheme)


def viterbi(scores: Tensor, real: Tensor, begins: Tensor, follows: Tensor) -> Tensor:
    """Return the most probable allowed sequence of tags of each text (Viterbi 1967).

    All texts of a batch are decoded together, word by word, without synchronisation with the device.

    Args:
        scores: Log-probabilities of the tags, (B, W, C).
        real: Whether a position is a word of the text and not padding, (B, W) bool; the padding is on the right.
        begins: Whether each tag may begin a text, (C,) bool.
        follows: Whether the second tag may follow the first, (C, C) bool.

    Returns:
        Class indices of the tags, (B, W); the values at padding are arbitrary.
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
    """Return (type, first word, last word) of each entity in a sequence of BIO tags."""
    spans: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("I-") and spans and spans[-1][0] == tag[2:] and spans[-1][2] == i - 1:
            spans[-1] = (tag[2:], spans[-1][1], i)
        elif tag != "O":
            spans.append((tag[2:], i, i))
    return spans
