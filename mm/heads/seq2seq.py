"""Head that generates a text with a transformer decoder, for translation, summaries, captions and replies."""

from typing import Any

import torch
from torch import Tensor
from transformers import MBartConfig, MBartForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mm.heads._generative import GenerativeHead
from mm.predictions import Text
from mm.types import Features


class Seq2SeqHead(GenerativeHead):
    """Generate a text with a decoder that attends to the fused tokens (Vaswani et al. 2017).

    The decoder is the mBART decoder of transformers, which has pre-norm layers (Liu et al. 2020).

    Args:
        vocab_size: Number of tokens of the tokenizer.
        embed_dim: Width D of the fused features and of the decoder.
        num_layers: Number of decoder layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability of the decoder.
        **generation: The arguments of `GenerativeHead`.

    Raises:
        ValueError: If a number is out of range, or if a text is longer than `max_length`.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embed_dim: int,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
        **generation: Any,
    ):
        super().__init__(**generation)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: got {num_heads}, which does not divide the width {embed_dim}")
        self.decoder: Any = MBartForCausalLM(
            MBartConfig(
                vocab_size=vocab_size, d_model=embed_dim, decoder_layers=num_layers, decoder_attention_heads=num_heads,
                decoder_ffn_dim=4 * embed_dim, dropout=dropout, max_position_embeddings=self.max_length,
                scale_embedding=True, pad_token_id=self.eos_token_id, bos_token_id=self.bos_token_id,
                eos_token_id=self.eos_token_id,
                forced_eos_token_id=None, encoder_layers=0, is_encoder_decoder=False, init_std=embed_dim**-0.5,
            )
        )  # fmt: skip

    def forward(self, fused: Features, target: Tensor | None = None) -> Text:
        """Return the logits (B, U, V) of each token of the text, given the fused tokens and the tokens before it.

        Args:
            fused: Fused Features with tokens (B, T, D).
            target: Token IDs of the text, (B, U); None: only the logits of the first token are computed.
        """
        if target is not None and target.shape[1] > self.max_length:
            raise ValueError(
                f"max_length: got {self.max_length} tokens, but a text to write has {target.shape[1]}; leave it "
                "out, and set target_codec.max_length"
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
