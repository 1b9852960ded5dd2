"""A text that is written from what was read: translation, summary, caption, reply."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, MBartConfig, MBartForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mm.heads._writing import Continued, before, compare_texts, generation, merge_read, next_token_loss
from mm.types import Features


class Seq2SeqHead(nn.Module):
    """A decoder that attends to the fused tokens, pre-norm as mBART's (Vaswani 2017, Liu 2020), by transformers.

    tokenizer: its folder; vocabulary: its tokens; begin, end: those around a text; longest: tokens that are written at
    most, the end included; label_smoothing: in training (Szegedy 2016); beams: texts that writing weighs, by their mean
    log-probability to the power of length_penalty (Wu 2016); sample: draw each token instead, from the most probable
    ones that make up top_p at a temperature (Holtzman 2020), the same at each call.
    Errors: ValueError for numbers out of range.
    """

    input = None

    def __init__(
        self,
        *,
        tokenizer: str,
        vocabulary: int,
        begin: int,
        end: int,
        longest: int,
        embed_dim: int,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
        beams: int = 1,
        length_penalty: float = 1.0,
        sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        weight: float = 1.0,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: got {label_smoothing}, wanted it below 1")
        if embed_dim % heads:
            raise ValueError(f"heads: got {heads}, which does not divide the width {embed_dim}")
        self.weight = weight
        self.begin, self.end, self.longest = begin, end, longest
        self.label_smoothing = label_smoothing
        self.how = generation(beams, length_penalty, sample, temperature, top_p, longest)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        self.decoder: Any = MBartForCausalLM(
            MBartConfig(
                vocab_size=vocabulary, d_model=embed_dim, decoder_layers=layers, decoder_attention_heads=heads,
                decoder_ffn_dim=4 * embed_dim, dropout=dropout, max_position_embeddings=longest, scale_embedding=True,
                pad_token_id=end, bos_token_id=begin, eos_token_id=end, forced_eos_token_id=None, encoder_layers=0,
                is_encoder_decoder=False, init_std=embed_dim**-0.5,
            )
        )  # fmt: skip

    def forward(self, fused: Features, target: Tensor | None = None) -> Continued:
        """tokens (B, T, D), target (B, U) -> U next tokens, each after those before; without a target the first"""
        if target is not None and target.shape[1] > self.longest:
            raise ValueError(
                f"longest: got {self.longest} tokens, but a text to write has {target.shape[1]}; leave it out, and set "
                "reads.max_length"
            )
        told = self.decoder(
            input_ids=before(target, self.begin, self.end, fused.tokens),
            encoder_hidden_states=fused.tokens,
            encoder_attention_mask=fused.mask.long(),
            use_cache=False,
        )
        return Continued(told.logits.float(), fused.tokens, fused.mask)

    def loss(self, prediction: Continued, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, U, V), (B, U) -> sum over the tokens of labelled rows that have something to read, their count"""
        return next_token_loss(prediction, target, fused, self.label_smoothing if self.training else 0.0)

    @torch.no_grad()
    def decode(self, prediction: Continued, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": text}"""
        if not len(prediction.memory):
            return []
        first = before(None, self.begin, self.end, prediction.memory)
        with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
            torch.manual_seed(0)
            written = self.decoder.generate(
                first,
                attention_mask=torch.ones_like(first),
                encoder_hidden_states=prediction.memory,
                encoder_attention_mask=prediction.mask.long(),
                past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
                **self.how,
            )
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [{"prediction": text.strip()} for text in texts]

    def compare(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
        """-> what is written, and what would be right"""
        return compare_texts(said, truth)

    def merge(self, prediction: Continued, group: Tensor, count: int) -> Continued:
        """What all windows of a row have read, side by side; the next tokens after the first."""
        return merge_read(prediction, group, count)
