"""Small transformer over bytes or tokens, trained from scratch."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, TransformerBlock, sinusoid, time_position
from mm.types import Features, InputSpec

BYTES = 257  # 256 bytes, and 0 for padding


class TextTransformer(Configurable, nn.Module):
    """Pre-norm transformer with sinusoidal positions, trained from scratch (Vaswani et al. 2017, Xiong et al. 2020).

    Args:
        embed_dim: Width D of the tokens.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.
        max_length: Maximum number of tokens per text; None: no limit. Longer texts are truncated or, if the transform
            splits texts into windows, split into windows of this length. The model itself accepts any length.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.
        tokenizer: `bytes`; `bpe`, `wordpiece` or `unigram`, which are trained on the training rows; or the folder or
            hub name of a tokenizer.
        vocab_size: Number of tokens of the tokenizer.
        causal: Whether a token attends to itself and earlier tokens only.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        max_length: int | None = 512,
        pool: str = "mean",
        tokenizer: str = "bytes",
        vocab_size: int = 8000,
        causal: bool = False,
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="text", tokenizer=tokenizer, max_length=max_length)
        self.embed = nn.Embedding(BYTES if tokenizer == "bytes" else vocab_size, embed_dim)
        # Small weights, which train fast, scaled to standard deviation 1 like the positions (Vaswani et al. 2017, 3.4).
        self.scale = embed_dim**0.5
        nn.init.normal_(self.embed.weight, std=1 / self.scale)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [TransformerBlock(embed_dim, num_heads, dropout, causal=causal) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = Pool(pool, embed_dim)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embed

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [["embed"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "norm", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of texts.

        Args:
            x: Token IDs, (B, T) int64.
            mask: Mask of the tokens, (B, T).

        Returns:
            Features with the tokens (B, T, D).
        """
        tokens = self.embed(x) * self.scale
        time = torch.arange(x.shape[1], device=x.device)
        tokens = self.drop(tokens + sinusoid(time, self.embed_dim).to(tokens.dtype))
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens)
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
