"""A step between composing a config and overriding it (Hydra 1.3)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig


@contextmanager
def before_overrides(step: Callable[[DictConfig, list[str]], None]) -> Iterator[None]:
    """Call a function with each config that Hydra has composed, before its values are overridden.

    Args:
        step: Gets the config and the keys of the overrides.
    """
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def apply_after_step(overrides: Sequence[Any], cfg: DictConfig) -> None:
        step(cfg, [override.key_or_group for override in overrides])
        apply(list(overrides), cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply_after_step)
    try:
        yield
    finally:
        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply)
