"""From a finished config to objects. This room and `mm.cli` are the only ones that know OmegaConf and Hydra."""
