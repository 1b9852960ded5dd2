"""Hydra configs of `mm`: one YAML file per verb, and a folder per group of options."""
