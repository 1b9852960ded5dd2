"""Tokenizers of texts that a model reads: trained on the training rows where the config names a kind."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from mm import checkpoint
from mm.assembly.construct import escape
from mm.cli._app import shown
from mm.messages import is_first_process
from mm.tokenizers import TOKENIZER_KINDS, load_tokenizer, train_cached_tokenizer


def finish_tokenizers(cfg: DictConfig, datamodule: Any) -> None:
    """Train what is to be trained, and fill in how many tokens each has; those of bytes stay."""
    table = datamodule.table
    rows = [row for row, split in enumerate(table.split) if split == "train"]
    share = dict(cfg.model.get("shared_encoders") or {})
    with open_dict(cfg):
        for name, node in cfg.model.encoders.items():
            if node.get("vocab_size") is None or node.tokenizer == "bytes":
                continue
            if node.tokenizer in TOKENIZER_KINDS:
                inputs = [name, *(other for other, owner in share.items() if owner == name)]
                texts = [text for one in inputs for row in rows for text in strings(table.inputs[one][row])]
                folder = Path(cfg.paths.cache) / "tokenizers"
                node.tokenizer = escape(str(train_cached_tokenizer(texts, node.tokenizer, node.vocab_size, folder)))
                if is_first_process():
                    print(
                        f"model.encoders.{name}.tokenizer: trained on {len(texts)} texts: {shown(Path(node.tokenizer))}"
                    )
            node.vocab_size = len(load_tokenizer(node.tokenizer))


def strings(raw: Any) -> list[str]:
    """The texts of a cell: one, two of a pair, or none."""
    found = raw if isinstance(raw, list | tuple) else [raw]
    return [text for text in found if isinstance(text, str) and text]


def check_sources(cfg: DictConfig, model: Any, sources: list[dict[str, Any]]) -> None:
    """Errors: ValueError where an encoder, or a head, begins with weights of other tokens: alike in shape alone."""
    read = {name: encoder.input.tokenizer for name, encoder in model.encoders.items()}
    written = {name: node.get("tokenizer") for name, node in (cfg.model.heads or {}).items()}
    for source in sources:
        folder, taken = checkpoint.fetch(source["path"]), taken_parts(source, model)
        for group, kept, owners in (("encoders", "tokenizer", read), ("heads", "labels", written)):
            for name, own in owners.items():
                if own is None or (group, name) not in taken:
                    continue
                theirs = folder / kept / name
                if group == "heads" and not theirs.is_dir():  # theirs writes nothing
                    continue
                use = str(theirs) if theirs.is_dir() else "bytes"
                if tokens_of(own) != tokens_of(use):
                    key = f"model.{group}.{name}{'.target_codec' if group == 'heads' else ''}.tokenizer"
                    raise ValueError(
                        f"model.init_from: {source['path']} has another tokenizer for '{name}', so that its weights "
                        f"mean other tokens; set {key}={use}"
                    )


def taken_parts(source: dict[str, Any], model: Any) -> set[tuple[str, ...]]:
    """(encoders or heads, name) of the parts that any weight of a source is taken for."""
    wanted = model.state_dict()
    weights = checkpoint.weights(source["path"])
    fitting = [name for name, x in weights.items() if name in wanted and x.shape == wanted[name].shape]
    return {tuple(name.split(".")[:2]) for name in fitting if any(re.search(rx, name) for rx in source["include"])}


def tokens_of(tokenizer: str) -> Any:
    """Its tokens and their numbers."""
    return tokenizer if tokenizer == "bytes" else load_tokenizer(tokenizer).get_vocab()
