"""Initial weights from models that were trained before (`model.init_from`)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mm import checkpoint
from mm.messages import near, say
from mm.model import MultimodalModel


def read_init_from(cfg: DictConfig) -> list[dict[str, Any]]:
    """Read `model.init_from`, the sources of the initial weights.

    Returns:
        A mapping with the keys `path` and `include` for each source, in the order in which they are loaded.

    Raises:
        ValueError: If an entry has another form.
    """
    given: Any = OmegaConf.to_container(cfg.model, resolve=True).get("init_from")  # type: ignore[union-attr]
    if given is None:
        return []
    sources = []
    for entry in given if isinstance(given, list) else [given]:
        source: Any = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(source, Mapping) or not isinstance(source.get("path"), str):
            raise ValueError(
                f"model.init_from: got {entry}, wanted a model directory, or {{path: DIR, include: [regex]}}"
            )
        for key in source:
            if key == "only":
                raise ValueError("model.init_from: the key 'only' is now 'include'")
            if key not in ("path", "include"):
                raise ValueError(
                    f"model.init_from: no key '{key}', wanted path and include{near(key, ['path', 'include'])}"
                )
        include = source.get("include", "")
        sources.append({"path": source["path"], "include": [include] if isinstance(include, str) else list(include)})
    return sources


def load_weights(sources: Sequence[Mapping[str, Any]], model: MultimodalModel) -> None:
    """Load from each source in turn the weights that fit a model by name and shape.

    The loaded, skipped and remaining weights are printed.

    Args:
        sources: The sources, as `read_init_from` returns them.
        model: The model, changed in place.

    Raises:
        ValueError: If no weight of a source fits, or if a regex matches no weight of its source.
    """
    ours = model.state_dict()
    loaded: set[str] = set()
    for source in sources:
        weights = checkpoint.weights(source["path"])
        for regex in source["include"]:
            if not any(re.search(regex, name) for name in weights):
                raise ValueError(f"model.init_from.include: '{regex}' matches no weight of {source['path']}")
        chosen = {n: x for n, x in weights.items() if any(re.search(regex, n) for regex in source["include"])}
        fitting = {n: x for n, x in chosen.items() if n in ours and x.shape == ours[n].shape}
        if not fitting:
            raise ValueError(
                f"model.init_from: no weight of {source['path']} fits this model; the first: "
                f"{next((why_skipped(n, x, ours) for n, x in chosen.items()), 'none, the file is empty')}. Choose a "
                "model with the same parts, or leave model.init_from out"
            )
        model.load_state_dict(fitting, strict=False)
        loaded.update(fitting)
        say(f"model.init_from: {len(fitting)} weights of {source['path']} taken: {count_by_part(fitting)}")
        for name in [n for n in chosen if n not in fitting]:
            say(f"  left: {why_skipped(name, chosen[name], ours)}")
    new = [name for name in ours if name not in loaded]
    if sources and new:
        say(f"  new: {count_by_part(new)}")


def why_skipped(name: str, weight: Tensor, ours: Mapping[str, Tensor]) -> str:
    """Return why a weight is not loaded into a model with the weights `ours`."""
    if name not in ours:
        return f"{name}, which this model lacks"
    return f"{name}, of shape {tuple(weight.shape)}, here {tuple(ours[name].shape)}"


def count_by_part(names: Iterable[str]) -> str:
    """Count the weights of each part of a model, in words such as `encoders.text (12), fusion (3)`."""
    counts: dict[str, int] = {}
    for name in names:
        words = name.split(".")
        part = words[0] if words[0] == "fusion" else ".".join(words[:2])
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} ({count})" for part, count in counts.items())
