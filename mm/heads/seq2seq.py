"""A text that is written from what was read: translation, summary, caption, reply."""

from typing import Any

import torch
from torch import Tensor
from transformers import MBartConfig, MBartForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mm.heads._generative import GenerativeHead
from mm.predictions import Text
from mm.types import Features


class Seq2SeqHead(GenerativeHead):
    """A decoder that attends to the fused tokens, pre-norm as mBART's (Vaswani 2017, Liu 2020), by transformers.

    vocabulary: the tokenizer's tokens; the rest: as in GenerativeHead.
    Errors: ValueError for numbers out of range, or a text that is longer than what is written at most.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        embed_dim: int,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        **how: Any,
    ):
        super().__init__(**how)
        if embed_dim % heads:
            raise ValueError(f"heads: got {heads}, which does not divide the width {embed_dim}")
        self.decoder: Any = MBartForCausalLM(
            MBartConfig(
                vocab_size=vocabulary, d_model=embed_dim, decoder_layers=layers, decoder_attention_heads=heads,
                decoder_ffn_dim=4 * embed_dim, dropout=dropout, max_position_embeddings=self.longest,
                scale_embedding=True, pad_token_id=self.end, bos_token_id=self.begin, eos_token_id=self.end,
                forced_eos_token_id=None, encoder_layers=0, is_encoder_decoder=False, init_std=embed_dim**-0.5,
            )
        )  # fmt: skip

    def forward(self, fused: Features, target: Tensor | None = None) -> Text:
        """tokens (B, T, D), target (B, U) -> U next tokens, each after those before; without a target the first"""
        if target is not None and target.shape[1] > self.longest:
            raise ValueError(
                f"longest: got {self.longest} tokens, but a text to write has {target.shape[1]}; leave it out, and set "
                "reads.max_length"
            )
        return Text(self.next_token_logits(fused.tokens, fused.mask, target), fused.tokens, fused.mask)

    def next_token_logits(self, memory: Tensor, mask: Tensor, target: Tensor | None) -> Tensor:
        told = self.decoder(
            input_ids=self.decoder_input(target, memory),
            encoder_hidden_states=memory,
            encoder_attention_mask=mask.long(),
            use_cache=False,
        )
        return told.logits.float()

    def generate(self, first: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        written = self.decoder.generate(
            first,
            attention_mask=torch.ones_like(first),
            encoder_hidden_states=memory,
            encoder_attention_mask=mask.long(),
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            **self.options,
        )
        return written[:, 1:]
