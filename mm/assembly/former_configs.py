"""Former names in configs: they are replaced in the configs of run folders, and rejected in those of the user."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.assembly.signatures import with_defaults
from mm.renames import upgrade, upgrade_keys


def check_keys(cfg: DictConfig) -> None:
    """Check that a composed config has no key with a former name, for example from a config file of the user.

    Raises:
        ValueError: If there is one; the message states its current name.
    """
    changes: dict[str, str] = {}
    upgrade_keys(OmegaConf.to_container(cfg, resolve=False), changes)  # type: ignore[arg-type]
    for former, current in changes.items():
        raise ValueError(f"{former} is now {current}")


def upgrade_run_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder in the form in which the current version writes it.

    Earlier versions moved the target codec of each head from `model.heads.NAME` to `datamodule.readers.NAME`.

    Args:
        config: The config.yaml of a run folder as plain data. It is not changed.
    """
    config = with_defaults(upgrade(upgrade_keys(config)))
    data = dict(config.get("datamodule") or {})
    codecs = data.pop("readers", None)
    if codecs is None:
        return config
    model = config["model"]
    heads = {
        name: {**head, "target_codec": codecs[name]} if name in codecs else head
        for name, head in model["heads"].items()
    }
    return {**config, "datamodule": data, "model": {**model, "heads": heads}}
