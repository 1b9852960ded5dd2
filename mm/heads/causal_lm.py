"""Head that generates an answer with a causal language model, whose prompt contains the fused tokens."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mm.heads._generative import GenerativeHead
from mm.layers import TransformerBlock
from mm.messages import near
from mm.predictions import Text
from mm.pretrained import load_pretrained
from mm.types import Features

PROJECTIONS = ("linear", "mlp", "queries")
HERE = "{input}"  # position of the projected tokens in the prompt


class Projection(nn.Module):
    """Project the fused tokens to prefix tokens of the language model's width.

    Args:
        kind: `linear` or `mlp`: each token is projected (Liu et al. 2023); `queries`: trained query tokens attend to
            all fused tokens (Li et al. 2023).
        dim: Width D of the fused tokens.
        width: Width E of the language model.
        num_queries: Number of query tokens, with `queries`.
    """

    def __init__(self, kind: str, dim: int, width: int, num_queries: int):
        super().__init__()
        if kind not in PROJECTIONS or num_queries < 1:
            raise ValueError(
                f"projection: got '{kind}' and num_queries={num_queries}, wanted one of {', '.join(PROJECTIONS)}, and "
                "at least 1 query"
            )
        self.queries = nn.Parameter(torch.randn(1, num_queries, dim) * 0.02) if kind == "queries" else None
        self.block = TransformerBlock(dim, 1) if kind == "queries" else None
        wide = [nn.Linear(dim, width)] if kind != "mlp" else [nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width)]
        self.out = nn.Sequential(*wide)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Project tokens (B, T, D) with mask (B, T) to P prefix tokens (B, P, E) with mask (B, P)."""
        if self.block is not None and self.queries is not None:
            tokens = self.block(self.queries.expand(len(tokens), -1, -1), mask, tokens)
            mask = mask.any(1, keepdim=True).expand(-1, tokens.shape[1])
        return self.out(tokens) * mask.unsqueeze(-1), mask


class CausalLMHead(GenerativeHead):
    """Generate an answer with a language model that reads the fused tokens as a prefix (Tsimpoukelli et al. 2021).

    The model can be any causal language model of transformers. The loss counts the tokens of the answer only, not those
    of the prompt. Padding can lie in the middle of the prompt. It does not influence models that ignore masked tokens,
    as nearly all models do, except mpt and mamba.

    Args:
        vocab_size: Number of tokens of the tokenizer.
        embed_dim: Width D of the fused features.
        pretrained: Folder or hub name of the language model. Its tokenizer must be the tokenizer of the target,
            `target_codec.tokenizer`.
        config: Configuration of a language model with random weights, in place of `pretrained`, such as {model_type:
            llama, hidden_size: 128}. The default of `initializer_range` is one over the root of the width.
        prompt: Prompt of the language model; the projected tokens replace {input}.
        projection: Projection of the fused tokens to the width of the language model: `linear`, `mlp` or `queries`.
        num_queries: Number of trained query tokens, with `projection=queries`.
        **generation: The arguments of `GenerativeHead`.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given, if the prompt does not contain exactly one
            {input} or contains unknown words, if the tokenizer is not that of the pretrained model, if a row is too
            long for the model, or if a number is out of range.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embed_dim: int,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        prompt: str = HERE,
        projection: str = "mlp",
        num_queries: int = 16,
        **generation: Any,
    ):
        super().__init__(**generation)
        if prompt.count(HERE) != 1:
            raise ValueError(f"prompt: got '{prompt}', wanted one {HERE} in it, where what was read stands")
        self.lm, self.architecture = language_model(pretrained, config, vocab_size, self.tokenizer)
        self.project = Projection(projection, embed_dim, self.lm.get_input_embeddings().embedding_dim, num_queries)
        around = [self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in prompt.split(HERE)]
        self.ahead, self.behind = around
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in [*self.ahead, *self.behind]:
            raise ValueError(
                f"prompt: the tokenizer does not know all of '{prompt}'; it was trained on the answers: choose "
                "target_codec.tokenizer=bpe, which reads bytes, or words of the answers"
            )
        most = getattr(self.lm.config, "max_position_embeddings", None)
        least = len(self.ahead) + len(self.behind) + self.options["max_new_tokens"] + 1  # with a single projected token
        if most is not None and least > most:
            raise ValueError(
                f"the language model reads {most} tokens, but the prompt and max_new_tokens="
                f"{self.options['max_new_tokens']} are {least} at least; set model.heads.NAME.max_new_tokens to what "
                "answers need, or choose another model"
            )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this architecture without downloading its pretrained weights.

        Returns:
            Keyword arguments of the constructor. The rebuilt module has random weights, to be replaced by
            `load_state_dict`.
        """
        return super().get_config() | self.architecture

    def prompted(self, tokens: Tensor, mask: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Insert the prefix tokens into the prompt, and append further tokens.

        Args:
            tokens: Prefix tokens, (B, P, E).
            mask: Mask of the prefix tokens, (B, P).
            more: IDs of the tokens that follow the prompt, (B, U).

        Returns:
            The embeddings of the complete sequence, (B, S, E), and its mask, (B, S).
        """
        look = self.lm.get_input_embeddings()
        rows = len(tokens)
        ahead, behind = (more.new_tensor(ids).expand(rows, -1) for ids in (self.ahead, self.behind))
        after = torch.cat([behind, more], dim=1)
        whole = torch.cat([look(ahead).to(tokens), tokens, look(after).to(tokens)], dim=1)
        real = torch.cat([torch.ones_like(ahead).bool(), mask, torch.ones_like(after).bool()], dim=1)
        return whole, real

    def forward(self, fused: Features, target: Tensor | None = None) -> Text:
        """Return the logits (B, U, V) of each token of the answer, given the prompt and the answer's tokens before it.

        Args:
            fused: Fused Features with tokens (B, T, D).
            target: Token IDs of the answer, (B, U); None: only the logits of the first token are computed.
        """
        tokens, mask = self.project(fused.tokens, fused.mask)
        return Text(self.next_token_logits(tokens, mask, target), tokens, mask)

    def next_token_logits(self, memory: Tensor, mask: Tensor, target: Tensor | None) -> Tensor:
        more = self.decoder_input(target, memory)
        whole, real = self.prompted(memory, mask, more)
        self.check_length(real)
        place = (real.cumsum(1) - 1).clamp(min=0)
        told = self.lm(inputs_embeds=whole, attention_mask=real.long(), position_ids=place, use_cache=False)
        return told.logits[:, -more.shape[1] :].float()

    def check_length(self, real: Tensor, more: int = 0) -> None:
        """Raise an error if a row is longer than the language model allows.

        Args:
            real: Mask of the sequence that the model reads, (B, S).
            more: Number of tokens to generate after it.

        Raises:
            ValueError: If a row has more tokens than the model has positions.
        """
        most = getattr(self.lm.config, "max_position_embeddings", None)
        if most is None or real.shape[1] + more <= most:  # with padding: avoids a sum on the device
            return
        length = int(real.sum(1).max()) + more
        if length > most:
            raise ValueError(
                f"the language model reads {most} tokens, but prompt, input and answer are {length}; choose "
                "projection=queries, shorter inputs, a smaller max_new_tokens, or another model"
            )

    def generate(self, first: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        whole, real = self.prompted(memory, mask, first)
        self.check_length(real, self.options["max_new_tokens"] - 1)  # the last token is generated but not read
        ends = {"eos_token_id": self.eos_token_id, "pad_token_id": self.eos_token_id}
        return self.lm.generate(inputs_embeds=whole, attention_mask=real.long(), **ends, **self.options)


def language_model(
    pretrained: str | None, config: Mapping[str, Any] | None, vocab_size: int, tokenizer: Any
) -> tuple[Any, dict[str, Any]]:
    """Build a causal language model.

    Args:
        pretrained: Folder or hub name of the model; exclusive with `config`.
        config: Configuration of a model with random weights.
        vocab_size: Number of tokens of the tokenizer.
        tokenizer: The tokenizer of the target.

    Returns:
        The model, and the arguments of `CausalLMHead` that rebuild its architecture without `pretrained`.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given, if the tokenizer is not that of the
            pretrained model, or if transformers does not know the model type.
    """
    if (pretrained is None) == (config is None):
        got = "neither" if pretrained is None else "both"
        raise ValueError(
            f"model.heads: got {got} of `pretrained` and `config` of the language model, wanted exactly one; set "
            "pretrained=FOLDER, or config={model_type: llama, ...} for random weights"
        )
    if pretrained is not None:
        model = load_pretrained(AutoModelForCausalLM, pretrained, dtype=torch.float32, trust_remote_code=False)
        if AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False).get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"the language model of {pretrained} has a tokenizer of its own; write with it, as "
                f"model.heads.target.target_codec.tokenizer={pretrained}"
            )
    else:
        plain = json.loads(json.dumps(config, default=dict)) | {"vocab_size": vocab_size}
        if plain.get("model_type") not in CONFIG_MAPPING:
            got = str(plain.get("model_type"))
            raise ValueError(f"config.model_type: transformers has no '{got}'{near(got, list(CONFIG_MAPPING))}")
        wanted = AutoConfig.for_model(**plain)
        # The default of 0.02 suits models that are ten times as wide; small ones do not train with it.
        if "initializer_range" not in plain:
            wanted.initializer_range = wanted.hidden_size**-0.5
        model = AutoModelForCausalLM.from_config(wanted, dtype=torch.float32, trust_remote_code=False)
    model.generation_config = GenerationConfig()  # settings in it would not be saved with the model
    kept = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    kept["vocab_size"] = vocab_size if pretrained is None else model.config.vocab_size
    return model, {"pretrained": None, "config": kept}
