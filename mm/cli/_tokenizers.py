"""Tokenizers of texts that a model reads: trained on the training rows where the config names a kind."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from mm import checkpoint
from mm.cli._app import is_first_process, shown
from mm.transforms.text.tokens import load_tokenizer
from mm.transforms.text.vocabulary import KINDS, trained

FILE = "tokenizer.json"


def finish_tokenizers(cfg: DictConfig, datamodule: Any) -> None:
    """Train what is to be trained, and fill in how many tokens each has; those of bytes stay."""
    table = datamodule.table
    rows = [row for row, split in enumerate(table.split) if split == "train"]
    share = dict(cfg.model.get("share") or {})
    with open_dict(cfg):
        for name, node in cfg.model.encoders.items():
            if node.get("vocabulary") is None or node.tokenizer == "bytes":
                continue
            if node.tokenizer in KINDS:
                inputs = [name, *(other for other, owner in share.items() if owner == name)]
                texts = [text for one in inputs for row in rows for text in strings(table.inputs[one][row])]
                folder = Path(cfg.paths.cache) / "tokenizers"
                node.tokenizer = str(trained(texts, node.tokenizer, node.vocabulary, folder))
                if is_first_process():
                    print(
                        f"model.encoders.{name}.tokenizer: trained on {len(texts)} texts: {shown(Path(node.tokenizer))}"
                    )
            node.vocabulary = len(load_tokenizer(node.tokenizer))


def strings(raw: Any) -> list[str]:
    """The texts of a cell: one, two of a pair, or none."""
    found = raw if isinstance(raw, list | tuple) else [raw]
    return [text for text in found if isinstance(text, str) and text]


def check_sources(cfg: DictConfig, sources: list[dict[str, Any]]) -> None:
    """Errors: ValueError where an encoder begins with weights of other tokens: alike in shape, not in meaning."""
    for source in sources:
        folder = checkpoint.fetch(source["path"])
        for name, node in cfg.model.encoders.items():
            theirs = folder / "tokenizer" / name / FILE
            taken = any(re.search(regex, f"encoders.{name}.embed.weight") for regex in source["only"])
            if node.get("vocabulary") is None or not taken or not (folder / "config.yaml").is_file():
                continue
            own = Path(node.tokenizer) / FILE
            same = own.is_file() and theirs.is_file() and own.read_bytes() == theirs.read_bytes()
            if not same and (own.is_file() or theirs.is_file()):
                use = theirs.parent if theirs.is_file() else "bytes"
                raise ValueError(
                    f"model.init_from: {source['path']} reads the input '{name}' by another tokenizer, so that its "
                    f"weights mean other tokens; set model.encoders.{name}.tokenizer={use}"
                )
