"""Base class of the heads that generate texts: next-token loss, generation, and the likelihood of a generated text."""

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

MAX_LOGITS = 2**26  # logits computed at a time for the likelihood of generated texts: 256 MiB


class GenerativeHead(Head):
    """Base class of heads that generate a text. A subclass implements `forward`, `next_token_logits` and `generate`.

    Args:
        tokenizer: Folder or name of the tokenizer.
        bos_token_id: ID of the token before each text.
        eos_token_id: ID of the token after each text.
        max_length: Maximum number of tokens of a text, including the end token.
        max_new_tokens: Number of tokens at which generation stops; None: `max_length` - 1.
        num_beams: Width of the beam search; 1: greedy search.
        length_penalty: Exponent of the length by which beam search divides log-probabilities (Wu et al. 2016). Values
            below 1 prefer shorter texts.
        do_sample: Whether to sample each token. The random seed is fixed, so that the same call generates the same
            text.
        temperature: Divisor of the logits when tokens are sampled.
        top_p: Tokens are sampled from the most probable tokens whose probabilities add up to this value (Holtzman et
            al. 2020).
        label_smoothing: Label smoothing of the training loss (Szegedy et al. 2016).
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        tokenizer: str,
        bos_token_id: int,
        eos_token_id: int,
        max_length: int,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        label_smoothing: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(weight=weight)
        # Compared with tensors below: a bool would not raise an error there.
        if any(type(number) is not int for number in (bos_token_id, eos_token_id, max_length)):
            raise ValueError(
                f"got bos_token_id={bos_token_id}, eos_token_id={eos_token_id} and max_length={max_length}, wanted "
                "whole numbers"
            )
        if num_beams < 1 or (do_sample and num_beams > 1):
            raise ValueError(f"num_beams: got {num_beams}, wanted at least 1, and 1 where do_sample=true")
        if max_new_tokens is not None and not 0 < max_new_tokens < max_length:
            raise ValueError(
                f"max_new_tokens: got {max_new_tokens}, wanted from 1 to the {max_length - 1} of a text, or null"
            )
        if temperature <= 0 or not 0 < top_p <= 1 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"got temperature={temperature}, top_p={top_p}, label_smoothing={label_smoothing}, wanted a "
                "temperature above 0, top_p in 0..1 and a smoothing below 1"
            )
        self.bos_token_id, self.eos_token_id, self.max_length = bos_token_id, eos_token_id, max_length
        self.label_smoothing = label_smoothing
        local = Path(tokenizer).is_dir()  # a folder is complete, so that the hub is not contacted
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False, local_files_only=local)
        # Arguments of `generate` of transformers.
        self.options: dict[str, Any] = {
            "num_beams": num_beams,
            "do_sample": do_sample,
            "max_new_tokens": max_new_tokens or max_length - 1,
        }
        self.options |= {"temperature": temperature, "top_p": top_p, "top_k": 0} if do_sample else {}
        self.options |= {"length_penalty": length_penalty} if num_beams > 1 else {}

    @abstractmethod
    def generate(self, first: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Generate the token IDs of a text for each row.

        Args:
            first: The token before each text, (B, 1).
            memory: Tokens that the decoder attends to, (B, T, D).
            mask: Mask of `memory`, (B, T).

        Returns:
            The IDs after the first token, (B, up to max_length).
        """

    @abstractmethod
    def next_token_logits(self, memory: Tensor, mask: Tensor, target: Tensor | None) -> Tensor:
        """Return the logits (B, U, V) of each token of a text, given the tokens before it.

        Args:
            memory: Tokens that the decoder attends to, (B, T, D).
            mask: Mask of `memory`, (B, T).
            target: Token IDs of the text, (B, U); None: only the logits of the first token are returned, (B, 1, V).
        """

    def decoder_input(self, target: Tensor | None, like: Tensor) -> Tensor:
        """Return the decoder input (B, U): the target shifted right by one, with the begin token at the front.

        Args:
            target: Token IDs of the text, (B, U); None: the input is the begin token alone, (B, 1).
            like: A tensor with B rows on the device of the result.
        """
        first = torch.full((len(like), 1), self.bos_token_id, device=like.device)
        if target is None:
            return first
        return torch.cat([first, target[:, :-1].masked_fill(target[:, :-1] == IGNORE, self.eos_token_id)], dim=1)

    def loss(self, prediction: Text, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the token losses and the number of target tokens, of labelled rows with a real fused token.

        Args:
            prediction: Logits of each token, (B, U, V), in a `Text`.
            target: Token IDs, (B, U); IGNORE for padding and unlabelled rows.
            fused: The fused Features; rows without a real token are left out.
        """
        target = target.masked_fill(~fused.mask.any(1, keepdim=True), IGNORE)
        smoothing = self.label_smoothing if self.training else 0.0
        total = F.cross_entropy(
            prediction.logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="sum",
            label_smoothing=smoothing,
        )  # fmt: skip
        return total, (target != IGNORE).sum()

    @torch.no_grad()
    def decode(self, prediction: Text, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Generate the texts and return one dictionary per row.

        Its keys are `prediction`, the text; `probability`, the geometric mean of the token probabilities; and
        `log_probability` of the complete text. See `text_row`.
        """
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
        """Return the log-probability and the number of tokens of generated texts, each up to its first end token.

        The log-probability is that of teacher forcing, without temperature, length penalty or other settings of the
        generation.

        Args:
            prediction: The prediction from which the texts were generated.
            written: Generated token IDs, (B, U).

        Returns:
            The log-probabilities (B,) float64, and the numbers of tokens (B,), including the end token.
        """
        over = (written == self.eos_token_id).cumsum(1) - (written == self.eos_token_id).long() > 0
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
