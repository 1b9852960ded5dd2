"""From the composed config to the finished one: what the data decides is filled in by name."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf


def fill(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Set every `???` below `node` whose key is in `values`."""
    for key in list(node):
        if OmegaConf.is_missing(node, key):
            if key in values:
                node[key] = values[key]
        elif isinstance(child := node._get_node(key), DictConfig) and not child._is_none() and not child._is_interpolation():
            fill(child, values)
