"""Configs and the objects built from them. Only this package and `mm.cli` use OmegaConf and Hydra."""
