"""Tokenizers of text encoders: their training, and their comparison with the tokenizers of loaded weights."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from mm import checkpoint
from mm.assembly.construct import escape
from mm.files import shown
from mm.messages import say
from mm.tokenizers import TOKENIZER_KINDS, load_tokenizer, train_cached_tokenizer


def finish_tokenizers(cfg: DictConfig, datamodule: Any) -> None:
    """Train the tokenizers that a config names by their kind, and fill in the vocabulary size of each text encoder.

    Args:
        cfg: The config, changed in place. Encoders of bytes are not changed.
        datamodule: The data. The tokenizers are trained on its training rows.
    """
    table = datamodule.table
    rows = [row for row, split in enumerate(table.split) if split == "train"]
    share = dict(cfg.model.get("shared_encoders") or {})
    with open_dict(cfg):
        for name, node in cfg.model.encoders.items():
            if node.get("vocab_size") is None or node.tokenizer == "bytes":
                continue
            if node.tokenizer in TOKENIZER_KINDS:
                inputs = [name, *(other for other, owner in share.items() if owner == name)]
                texts = [text for one in inputs for row in rows for text in texts_of(table.inputs[one][row])]
                folder = Path(cfg.paths.cache) / "tokenizers"
                node.tokenizer = escape(str(train_cached_tokenizer(texts, node.tokenizer, node.vocab_size, folder)))
                say(f"model.encoders.{name}.tokenizer: trained on {len(texts)} texts: {shown(Path(node.tokenizer))}")
            node.vocab_size = len(load_tokenizer(node.tokenizer))


def texts_of(raw: Any) -> list[str]:
    """Return the non-empty texts of a cell, which may contain a single text, a list of texts, or no text."""
    found = raw if isinstance(raw, list | tuple) else [raw]
    return [text for text in found if isinstance(text, str) and text]


def check_tokenizers(cfg: DictConfig, model: Any, sources: list[dict[str, Any]]) -> None:
    """Check that initial weights from other models belong to the same tokens, since their shapes may agree by chance.

    Args:
        cfg: The config.
        model: The model.
        sources: The sources of the weights, as `read_init_from` returns them.

    Raises:
        ValueError: If an encoder or a head would start with the weights of another tokenizer.
    """
    read = {name: encoder.input.tokenizer for name, encoder in model.encoders.items()}
    written = {name: node.get("tokenizer") for name, node in (cfg.model.heads or {}).items()}
    for source in sources:
        folder, loaded = checkpoint.fetch(source["path"]), fitting_parts(source, model)
        for group, kept, owners in (("encoders", "tokenizer", read), ("heads", "labels", written)):
            for name, own in owners.items():
                if own is None or (group, name) not in loaded:
                    continue
                theirs = folder / kept / name
                if group == "heads" and not theirs.is_dir():  # theirs writes nothing
                    continue
                use = str(theirs) if theirs.is_dir() else "bytes"
                if vocabulary_of(own) != vocabulary_of(use):
                    key = f"model.{group}.{name}{'.target_codec' if group == 'heads' else ''}.tokenizer"
                    raise ValueError(
                        f"model.init_from: {source['path']} has another tokenizer for '{name}', so that its weights "
                        f"mean other tokens; set {key}={use}"
                    )


def fitting_parts(source: dict[str, Any], model: Any) -> set[tuple[str, ...]]:
    """Return the parts of a model that fit at least one weight of a source, each as ("encoders" or "heads", name)."""
    wanted = model.state_dict()
    weights = checkpoint.weights(source["path"])
    fitting = [name for name, x in weights.items() if name in wanted and x.shape == wanted[name].shape]
    return {tuple(name.split(".")[:2]) for name in fitting if any(re.search(rx, name) for rx in source["include"])}


def vocabulary_of(tokenizer: str) -> Any:
    """Return the vocabulary, token to id, of a tokenizer, or "bytes"."""
    return tokenizer if tokenizer == "bytes" else load_tokenizer(tokenizer).get_vocab()
