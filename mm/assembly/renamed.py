"""Configs of run folders that earlier versions wrote."""

from typing import Any

from mm.renames import upgrade


def upgrade_run_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder as this version writes it.

    Earlier versions moved the target codec of each head from `model.heads.NAME.reads` to `datamodule.readers.NAME`.

    Args:
        config: Plain data of the config.yaml of a run folder, which stays as it is.
    """
    config = upgrade(config)
    data = dict(config.get("datamodule") or {})
    codecs = data.pop("readers", None)
    if codecs is None:
        return config
    model = config["model"]
    heads = {name: {**head, "reads": codecs[name]} if name in codecs else head for name, head in model["heads"].items()}
    return {**config, "datamodule": data, "model": {**model, "heads": heads}}
