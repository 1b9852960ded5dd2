"""Bottleneck transformer, whose inputs exchange information only through a few shared tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding, presence
from mm.fusion.sum import reduce_present
from mm.layers import TransformerBlock
from mm.types import Features


class BottleneckLayer(nn.Module):
    """One transformer block per input, which attends to the tokens of this input and to the bottleneck tokens."""

    def __init__(self, inputs: int, dim: int, heads: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, dropout) for _ in range(inputs))

    def forward(
        self, tokens: list[Tensor], masks: list[Tensor], bottleneck: Tensor, present: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return the updated tokens of each input, and the bottleneck tokens averaged over the present inputs.

        Args:
            tokens: Tokens of each of the N inputs, (B, T, D).
            masks: Mask of the tokens of each input followed by the bottleneck tokens, (B, T + K).
            bottleneck: Bottleneck tokens, (B, K, D).
            present: Whether each row has each input, (B, N).
        """
        after, written = [], []
        for block, x, mask in zip(self.blocks, tokens, masks, strict=True):
            x, update = block(torch.cat([x, bottleneck], dim=1), mask).split([x.shape[1], bottleneck.shape[1]], dim=1)
            after.append(x)
            written.append(update.flatten(1))  # (B, K D)
        return after, reduce_present(torch.stack(written, dim=1), present, "mean").view_as(bottleneck)


class BottleneckFusion(Configurable, nn.Module):
    """Fuse inputs that exchange information only through a few bottleneck tokens (MBT, Nagrani et al. 2021).

    Each input has its own transformer, which attends to the tokens of this input and to the bottleneck tokens. Each
    layer of each input updates the bottleneck tokens, and the next layer reads their mean over the present inputs. The
    pooled vector is the mean of the class tokens of the present inputs. The tokens of the result are the tokens of all
    inputs, in order.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        num_bottleneck_tokens: Number K of bottleneck tokens.
        num_layers: Number of transformer layers of each input, 2 or more.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`, or if there is only one layer.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        num_bottleneck_tokens: int = 4,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        if num_layers < 2:
            raise ValueError(
                f"model.fusion.num_layers: got {num_layers}, wanted 2 or more: a layer reads what the one before wrote "
                "into the bottleneck"
            )
        self.inputs = list(inputs)
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.class_token = nn.Parameter(torch.randn(len(self.inputs), 1, 1, embed_dim) * 0.02)
        self.bottleneck = nn.Parameter(torch.randn(1, num_bottleneck_tokens, embed_dim) * 0.02)
        n = len(self.inputs)
        self.layers = nn.ModuleList(BottleneckLayer(n, embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the tokens of all inputs, (B, sum of T, D)."""
        embedded = self.embedding(features)
        present = presence(features, self.inputs)  # (B, N)
        rows = len(present)
        x = [
            torch.cat([token.expand(rows, -1, -1), embedded[name]], dim=1)  # (B, 1 + T, D)
            for token, name in zip(self.class_token, self.inputs, strict=True)
        ]
        bottleneck = self.bottleneck.expand(rows, -1, -1)  # (B, K, D)
        masks = [features[name].mask for name in self.inputs]
        # The class token and the bottleneck tokens are never absent.
        attended = [F.pad(mask, (1, bottleneck.shape[1]), value=True) for mask in masks]
        for layer in self.layers:
            x, bottleneck = layer(x, attended, bottleneck, present)
        x = [self.norm(y) for y in x]
        return Features(
            tokens=torch.cat([y[:, 1:] for y in x], dim=1),
            mask=torch.cat(masks, dim=1),
            pooled=reduce_present(torch.stack([y[:, 0] for y in x], dim=1), present, "mean"),
            position=torch.cat([features[name].position for name in self.inputs], dim=1),
        )
