"""What heads share that generate texts: the loss of the next tokens, generation, and the likelihood of a text."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from mm.heads.base import Head
from mm.predictions import Text
from mm.predictions.text import text_row
from mm.types import IGNORE, Features

MAX_LOGITS = 2**26  # logits at a time, where texts are told again: 256 MiB


class GenerativeHead(Head):
    """Tells a text token by token. A child gives `forward`, `next_token_logits` and `generate`.

    tokenizer: its folder; begin, end: the tokens around a text; longest: tokens of a text at most, the end included;
    max_new_tokens: at which writing stops before that; label_smoothing: in training (Szegedy 2016); beams: texts that
    writing weighs, by their mean log-probability to the power of length_penalty (Wu 2016); sample: draw each token
    instead, from the most probable ones that make up top_p at a temperature (Holtzman 2020), the same at each call.
    Errors: ValueError for numbers out of range.
    """

    def __init__(
        self,
        *,
        tokenizer: str,
        begin: int,
        end: int,
        longest: int,
        max_new_tokens: int | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        label_smoothing: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(weight=weight)
        if any(type(token) is not int for token in (begin, end, longest)):  # true would be compared as a whole tensor
            raise ValueError(f"got begin={begin}, end={end} and longest={longest}, wanted whole numbers")
        if beams < 1 or (sample and beams > 1):
            raise ValueError(f"beams: got {beams}, wanted at least 1, and 1 where sample=true")
        if max_new_tokens is not None and not 0 < max_new_tokens < longest:
            raise ValueError(
                f"max_new_tokens: got {max_new_tokens}, wanted from 1 to the {longest - 1} of a text, or null"
            )
        if temperature <= 0 or not 0 < top_p <= 1 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"got temperature={temperature}, top_p={top_p}, label_smoothing={label_smoothing}, wanted a "
                "temperature above 0, top_p in 0..1 and a smoothing below 1"
            )
        self.begin, self.end, self.longest = begin, end, longest
        self.label_smoothing = label_smoothing
        own = Path(tokenizer).is_dir()  # a folder has all of it: nothing is asked of a hub
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False, local_files_only=own)
        # As transformers' `generate` has it.
        self.options: dict[str, Any] = {
            "num_beams": beams,
            "do_sample": sample,
            "max_new_tokens": max_new_tokens or longest - 1,
        }
        self.options |= {"temperature": temperature, "top_p": top_p, "top_k": 0} if sample else {}
        self.options |= {"length_penalty": length_penalty} if beams > 1 else {}

    @abstractmethod
    def generate(self, first: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """The begin (B, 1), what was read (B, T, D), (B, T) -> ids after the begin (B, up to longest)"""

    @abstractmethod
    def next_token_logits(self, memory: Tensor, mask: Tensor, target: Tensor | None) -> Tensor:
        """What was read, target (B, U) -> logits (B, U, V) of each next token; without a target of the first"""

    def decoder_input(self, target: Tensor | None, like: Tensor) -> Tensor:
        """What each next token follows: the begin, and the tokens before it; without a target the begin. -> (B, U)"""
        first = torch.full((len(like), 1), self.begin, device=like.device)
        if target is None:
            return first
        return torch.cat([first, target[:, :-1].masked_fill(target[:, :-1] == IGNORE, self.end)], dim=1)

    def loss(self, prediction: Text, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, U, V), (B, U) -> sum over the tokens of labelled rows that have something to read, their count"""
        target = target.masked_fill(~fused.mask.any(1, keepdim=True), IGNORE)
        how: Any = {"ignore_index": IGNORE, "reduction": "sum"}
        how |= {"label_smoothing": self.label_smoothing if self.training else 0.0}
        return F.cross_entropy(prediction.logits.flatten(0, 1), target.flatten(), **how), (target != IGNORE).sum()

    @torch.no_grad()
    def decode(self, prediction: Text, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": text, "probability" per token, "log_probability" of the text}, see text_row"""
        if not len(prediction.memory):
            return []
        first = self.decoder_input(None, prediction.memory)
        with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
            torch.manual_seed(0)
            written = self.generate(first, prediction.memory, prediction.mask)
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        logs, counts = (x.tolist() for x in self.likelihood(prediction, written))
        return [text_row(text.strip(), p, n) for text, p, n in zip(texts, logs, counts, strict=True)]

    def likelihood(self, prediction: Text, written: Tensor) -> tuple[Tensor, Tensor]:
        """Of texts as they would be learnt, up to their first end: log-probability, tokens. (B, U) -> (B,), (B,)"""
        over = (written == self.end).cumsum(1) - (written == self.end).long() > 0
        target = written.masked_fill(over, IGNORE)
        size = max(1, MAX_LOGITS // (written.shape[1] * prediction.logits.shape[-1]))
        parts = zip(prediction.memory.split(size), prediction.mask.split(size), target.split(size), strict=True)
        losses = [
            F.cross_entropy(
                self.next_token_logits(memory, mask, ids).float().transpose(1, 2), ids, reduction="none"
            ).sum(1)
            for memory, mask, ids in parts
        ]
        return -torch.cat(losses).double(), (target != IGNORE).sum(1)
