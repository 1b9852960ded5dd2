"""Children of a config as they are written, before interpolation (OmegaConf 2.3)."""

from omegaconf import DictConfig


def plain_child(node: DictConfig, key: str) -> DictConfig | None:
    """Return the mapping under a key; None for any other value, null, ??? and a reference."""
    child = node._get_node(key)
    if not isinstance(child, DictConfig) or child._is_none() or child._is_missing() or child._is_interpolation():
        return None
    return child
