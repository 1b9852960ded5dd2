"""Former names in configs: those of run folders are upgraded, those that a user writes are answered."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.assembly.signatures import with_defaults
from mm.renames import upgrade, upgrade_keys


def check_keys(cfg: DictConfig) -> None:
    """Check that no key of a composed config is a former one, as a config file of the user's may have it.

    Raises:
        ValueError: If there is one; the message states its current name.
    """
    changes: dict[str, str] = {}
    upgrade_keys(OmegaConf.to_container(cfg, resolve=False), changes)  # type: ignore[arg-type]
    for former, current in changes.items():
        raise ValueError(f"{former} is now {current}")


def upgrade_run_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder as this version writes it.

    Earlier versions moved the target codec of each head from `model.heads.NAME` to `datamodule.readers.NAME`.

    Args:
        config: Plain data of the config.yaml of a run folder, which stays as it is.
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
