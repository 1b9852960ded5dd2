"""A tag per word: named entities by BIO, or plain tags such as parts of speech."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mm.configurable import Configurable
from mm.heads._classifying import ClassLoss, misfit
from mm.types import IGNORE, Features
from mm.windows import side_by_side


def allowed(classes: Sequence[str], scheme: str = "bio") -> tuple[Tensor, Tensor]:
    """Return which tags may begin a text (C,), and which may follow which (C, C).

    By BIO an I- needs its B- or I- before; plain tags may stand anywhere.
    """
    inner = [scheme == "bio" and tag.startswith("I-") for tag in classes]
    follows = [[not i or (a != "O" and a[2:] == b[2:]) for b, i in zip(classes, inner)] for a in classes]
    return ~torch.tensor(inner), torch.tensor(follows)


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
    """(type, first word, last word) of what BIO tags name."""
    found: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("I-") and found and found[-1][0] == tag[2:] and found[-1][2] == i - 1:
            found[-1] = (tag[2:], found[-1][1], i)
        elif tag != "O":
            found.append((tag[2:], i, i))
    return found


class TokenClassificationHead(Configurable, nn.Module):
    """Linear classifier of each of the anchor's tokens; a word's tag is that of its first token.

    classes: the tags; scheme: bio, by which entities are found, or plain, where a tag stands for itself; input: the
    anchor's name; counts: of words; the rest: as in classification.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        embed_dim: int,
        counts: Sequence[int] = (),
        scheme: str = "bio",
        dropout: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__()
        self.classes = list(classes)
        self.input = input
        self.weight = weight
        self.class_loss = ClassLoss(self.classes, counts, class_weights, label_smoothing, focal_gamma)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))
        self.scheme = scheme
        begins, follows = allowed(self.classes, scheme)
        self.register_buffer("begins", begins, persistent=False)
        self.register_buffer("follows", follows, persistent=False)

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """tokens (B, T, D) -> logits (B, T, C)"""
        return self.linear(self.drop(fused.tokens))

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, T, C), (B, up to T) -> sum over labelled words, their count (or their class weights)"""
        return self.class_loss(prediction.flatten(0, 1), fit(target, prediction).flatten())

    def compare(self, said: Sequence[dict[str, Any]], truth: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Compare the tags of whole texts, as seqeval does, and not only of the words that were read.

        A word without a token, because the text was truncated or the tokenizer drops it, is predicted as O; of plain
        tags it has no prediction, and counts as wrong.

        Args:
            said: What `decode` returned for each row.
            truth: Of each row the tags of all words.

        Returns:
            Predicted and true tags as classes, each (N, W) int64, `IGNORE` behind the words of shorter texts, and where
            nothing is predicted.
        """
        index: dict[str | None, int] = {tag: i for i, tag in enumerate(self.classes)}
        index[None] = index["O"] if self.scheme == "bio" else IGNORE
        device = self.linear.weight.device
        told, true = [], []
        for row, tags in zip(said, truth, strict=True):
            found = [*row["tags"], *[None] * (len(tags) - len(row["tags"]))]
            told.append(torch.tensor([index[tag] for tag in found[: len(tags)]]))
            true.append(torch.tensor([index[tag] for tag in tags]))
        if not told:
            return torch.zeros(2, 0, 0, dtype=torch.long, device=device).unbind()  # type: ignore[return-value]
        return tuple(pad_sequence(x, True, IGNORE).to(device) for x in (told, true))  # type: ignore[return-value]

    def choices(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-> logits (N, 1, C) and tags (N, 1) of the N labelled words of all rows"""
        target = fit(target, prediction)
        words = target != IGNORE
        return prediction[words].float().unsqueeze(1), target[words].unsqueeze(1)

    def tempered(self, prediction: Tensor, temperature: float) -> Tensor:
        return prediction.float() / temperature

    def nonconformity(self, prediction: Tensor, target: Tensor) -> Tensor:
        """-> of the true tag that fits worst of a text's words (N, 1), so that texts, not words, are exchangeable"""
        target = fit(target, prediction)
        words = target != IGNORE
        worst = misfit(prediction.flatten(0, 1)).view(prediction.shape)
        true = worst.gather(2, target.clamp(min=0).unsqueeze(2)).squeeze(2).masked_fill(~words, 0.0)
        return true[words.any(1)].amax(1, keepdim=True)

    def region(
        self, prediction: Tensor, quantiles: Sequence[float], meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """-> {"set": [[tag, ...] of each word]} per row, the most probable first, and how many these are (B,)

        What is told is in them, also where BIO, and not its probability, decides it.
        """
        found, sizes = [], []
        for _, _, scores, untold, best in self.tagged(prediction, meta):
            keeps = misfit(scores) <= quantiles[0]
            keeps[torch.arange(len(scores)), best] = True
            order = scores.argsort(1, descending=True)
            tags = [[self.classes[i] for i in best if may[i]] for best, may in zip(order.tolist(), keeps.tolist())]
            found.append({"set": [None if nothing else some for some, nothing in zip(tags, untold.tolist())]})
            sizes.append(keeps[~untold].sum(1).float().mean())
        return found, torch.stack(sizes).nan_to_num() if sizes else prediction.new_zeros(0)

    def tags(self, scores: Tensor, real: Tensor) -> Tensor:
        """Of the words of texts, log-probabilities (B, W, C), (B, W) -> (B, W)"""
        return viterbi(scores, real, self.begins, self.follows)  # type: ignore[arg-type]

    def tagged(self, prediction: Tensor, meta: Mapping[str, Tensor]) -> list[tuple[Any, ...]]:
        """Of each text what `words` gives, and the tags of its words (W,)."""
        parts = (prediction.float(), meta[f"{self.input}/words"], meta[f"{self.input}/characters"])
        rows = [self.words(*row) for row in zip(*parts, strict=True)]
        if not rows:
            return []
        counts = torch.tensor([len(scores) for _, _, scores, _ in rows], device=prediction.device)
        scores = pad_sequence([scores for _, _, scores, _ in rows], batch_first=True)
        real = torch.arange(scores.shape[1], device=prediction.device) < counts.unsqueeze(1)
        tags = self.tags(scores, real)
        return [(*row, best[: len(row[2])]) for row, best in zip(rows, tags, strict=True)]

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": [{"type", "text", "start", "end"}], "tags" of each word, "probability" of its tag}

        prediction: the entities; of plain tags every word with its tag as type; start, end: characters of the text. Of
        a word without a token, because the text was truncated or the tokenizer drops it, the tag and its probability
        are None.
        """
        return [self.tell(*row) for row in self.tagged(prediction, meta)]

    def tell(
        self, text: str, places: list[tuple[int, int]], scores: Tensor, untold: Tensor, best: Tensor
    ) -> dict[str, Any]:
        """As decode, of one row, see tagged."""
        tags = [self.classes[i] for i in best.tolist()]
        chances = scores.softmax(-1).gather(1, best.unsqueeze(1)).squeeze(1).tolist()
        found = [
            {"type": kind, "text": text[places[a][0] : places[b][1]], "start": places[a][0], "end": places[b][1]}
            for kind, a, b in self.named(tags, untold.tolist())
        ]
        told = [None if nothing else tag for tag, nothing in zip(tags, untold.tolist(), strict=True)]
        chances = [None if tag is None else chance for tag, chance in zip(told, chances, strict=True)]
        return {"prediction": found, "tags": told, "probability": chances}

    def named(self, tags: Sequence[str], untold: Sequence[bool]) -> list[tuple[str, int, int]]:
        """Return (type, first word, last word) of each entity, or, of plain tags, of each word that has a token."""
        if self.scheme == "bio":
            return entities(tags)
        return [(tag, i, i) for i, (tag, nothing) in enumerate(zip(tags, untold)) if not nothing]

    def words(
        self, logits: Tensor, words: Tensor, characters: Tensor
    ) -> tuple[str, list[tuple[int, int]], Tensor, Tensor]:
        """(T, C), (up to T,) the word that each token begins or -1, (letters,) -> the text, and of its W words

        first character and one after the last, log-probabilities (W, C), and whether it has no token (W,): by BIO an O.

        A word may be in several windows, where windows of another input, which has no part in it, repeat the text: the
        first of them counts.
        """
        words = F.pad(words, (0, logits.shape[0] - len(words)), value=-1)
        text = "".join(map(chr, characters.tolist())).rstrip("\0")  # padding
        places = [found.span() for found in re.finditer(r"\S+", text)]
        untold = torch.ones(len(places), dtype=torch.bool, device=logits.device)
        untold[words[words >= 0].long()] = False
        scores = logits.new_full((len(places), len(self.classes)), -torch.inf)
        if self.scheme == "bio":
            scores[untold, self.classes.index("O")] = 0
        else:
            scores[untold] = 0
        firsts = dict(reversed([(word, place) for place, word in enumerate(words.tolist()) if word >= 0]))
        scores[[*firsts]] = logits[[*firsts.values()]].log_softmax(-1)
        return text, places, scores, untold

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """The windows' tokens side by side. (B, T, C), (B,) -> (count, W T, C)"""
        return side_by_side(prediction, group, count, prediction.shape[1], 0.0)


def fit(target: Tensor, prediction: Tensor) -> Tensor:
    """As long as the tokens are. (B, up to T), (B, T, C) -> (B, T)

    Errors: ValueError where there are fewer tokens, as of an encoder that gives one of a whole text.
    """
    if target.shape[1] > prediction.shape[1]:
        raise ValueError(
            f"a tag is told of each token of its input, and there are {target.shape[1]}, but the encoder gives "
            f"{prediction.shape[1]}; choose one that gives a token for each, such as transformer"
        )
    return F.pad(target, (0, prediction.shape[1] - target.shape[1]), value=IGNORE)
