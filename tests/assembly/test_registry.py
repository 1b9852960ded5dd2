"""Configs are composed with the defaults of the signatures, which are overridden as any other key."""

import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from mm.assembly.registry import fill_defaults, open_registry


def test_what_a_yaml_leaves_out_is_composed_and_overridden():
    with open_registry():
        cfg = compose("train", ["model/fusion=transformer", "model.fusion.num_heads=8", "~model.encoders.text.causal"])
        assert cfg.model.fusion.num_heads == 8 and cfg.model.fusion.num_layers == 2
        assert "causal" not in cfg.model.encoders.text and cfg.model.encoders.audio.frontend.n_mels == 40
        with pytest.raises(ConfigCompositionException, match="num_head"):
            compose("train", ["model/fusion=transformer", "model.fusion.num_head=8"])


def test_hydra_is_as_it_was_afterwards():
    before = ConfigLoaderImpl._apply_overrides_to_config
    with open_registry():
        assert ConfigLoaderImpl._apply_overrides_to_config is not before
    assert ConfigLoaderImpl._apply_overrides_to_config is before


def test_a_part_of_another_class_is_left_as_it_is():
    target = "mm.fusion.sum.SumFusion"
    cfg = OmegaConf.create({"a": {"_target_": target}, "b": {"_target_": target, "reduce": "max"}, "c": None})
    cfg.d = {"_target_": target, "reduce": "mean", "anchor": "???"}
    OmegaConf.set_struct(cfg, True)
    fill_defaults(cfg, ["a._target_", "b.reduce"])
    assert cfg.a == {"_target_": target} and cfg.c is None
    assert cfg.b == {"_target_": target, "reduce": "max", "anchor": None}
    assert OmegaConf.is_missing(cfg.d, "anchor")
    assert OmegaConf.is_struct(cfg)
