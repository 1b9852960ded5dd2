"""LSTM or GRU over bytes or tokens."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.text.transformer import BYTES
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


def reverse(x: Tensor, length: Tensor) -> Tensor:
    """Reverse each row within its length, and leave its padding in place. (B, T, D), (B,) -> (B, T, D)"""
    time = torch.arange(x.shape[1], device=x.device)  # (T,)
    back = length.unsqueeze(1) - 1 - time  # (B, T)
    index = torch.where(back >= 0, back, time)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))


class TextRecurrent(Configurable, nn.Module):
    """LSTM or GRU over bytes or tokens (Hochreiter and Schmidhuber 1997, Cho et al. 2014).

    Padding is on the right. The backward direction reads each row reversed within its length, so that it never reads
    padding before a token. `torch.compile(fullgraph=True)` needs `torch._dynamo.config.allow_rnn = True`.

    Args:
        embed_dim: Width D of the tokens; with two directions, each direction has the width D / 2.
        num_layers: Number of layers.
        cell: Recurrent cell: `lstm` or `gru`.
        bidirectional: Whether to add a second direction that reads the text from its end.
        dropout: Dropout probability of the input of each layer.
        max_length: Maximum number of tokens per text; None: no limit. Longer texts are truncated or, if the transform
            splits texts into windows, split into windows of this length.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.
        tokenizer: `bytes`; `bpe`, `wordpiece` or `unigram`, which are trained on the training rows; or the folder or
            hub name of a tokenizer.
        vocab_size: Number of tokens of the tokenizer.

    Raises:
        ValueError: If the cell is unknown, or if `embed_dim` is odd with two directions.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        num_layers: int = 1,
        cell: str = "gru",
        bidirectional: bool = True,
        dropout: float = 0.1,
        max_length: int | None = 512,
        pool: str = "max",
        tokenizer: str = "bytes",
        vocab_size: int = 8000,
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: got '{cell}', wanted one of {', '.join(CELLS)}")
        if bidirectional and embed_dim % 2:
            raise ValueError(f"embed_dim: got {embed_dim}, wanted an even width for two directions; {embed_dim + 1} is")
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="text", tokenizer=tokenizer, max_length=max_length)
        self.embed = nn.Embedding(BYTES if tokenizer == "bytes" else vocab_size, embed_dim)
        self.drop = nn.Dropout(dropout)

        def direction() -> nn.ModuleList:
            width = embed_dim // 2 if bidirectional else embed_dim
            return nn.ModuleList([CELLS[cell](embed_dim, width, batch_first=True) for _ in range(num_layers)])

        self.ahead = direction()
        self.back = direction() if bidirectional else None
        self.pool = Pool(pool, embed_dim)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embed

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [["embed"], *([f"ahead.{i}", f"back.{i}"] for i in range(len(self.ahead)))]
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of texts.

        Args:
            x: Token IDs, (B, T) int64.
            mask: Mask of the tokens, (B, T).

        Returns:
            Features with the tokens (B, T, D).
        """
        length = mask.sum(1)
        tokens = self.embed(x)
        for i, ahead in enumerate(self.ahead):
            y = ahead(self.drop(tokens))[0]
            if self.back is not None:
                z = self.back[i](reverse(self.drop(tokens), length))[0]
                y = torch.cat([y, reverse(z, length)], dim=-1)
            tokens = y
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
