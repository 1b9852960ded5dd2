"""What must be known of run folders before Hydra creates them, and the folder of a sweep, which one command has."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mm.cli import _app
from mm.files import shown
from mm.messages import is_first_process
from mm.runs.folder import OVERRIDES, RunFolder, TakenError, claim, locked

SWEEP = "multirun.yaml"  # Hydra's file in the folder of a sweep


class Claim(Callback):
    """Hydra callback that records which run folders are new and locks the folder of a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note whether `hydra.run.dir` is new: where it was typed Hydra creates it."""
        try:
            folder = select(config, "hydra.run.dir").absolute()
            if not folder.exists():
                _app.NEW.add(folder)
        except Exception as error:
            raise _app.RefusedError(error) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim `hydra.sweep.dir`; a default name that is taken gets a number appended."""
        if not is_first_process():
            return
        try:
            sweep = select(config, "hydra.sweep.dir")
            if _app.is_default_name(config):
                own = claim(sweep, typed=False)
                if own.path != sweep:
                    name = Path(config.run).with_name(own.path.name)
                    config.run = str(name)
                    config.hydra.overrides.task.append(f"run={name}")  # the jobs are composed from these
            else:
                own = claim_sweep(sweep)
            before = {path.name for path in own.path.iterdir()}
        except Exception as error:
            raise _app.RefusedError(error) from error
        _app.SWEEPS.append((own, before))


def select(config: DictConfig, key: str) -> Path:
    """A folder that the config names, perhaps with values of Hydra's, which are not set yet."""
    HydraConfig.instance().set_config(config)
    OmegaConf.set_readonly(config.hydra, None)  # as it was; Hydra itself sets it for each job
    return Path(OmegaConf.select(config, key))


def claim_sweep(path: Path) -> RunFolder:
    """Claim the folder of a sweep whose name was typed: a new one, an empty one, or that of an earlier sweep.

    Raises:
        TakenError: If it holds anything else, or another command works in it.
    """
    if not (path / SWEEP).is_file():
        return claim(path, typed=True)
    if (path / OVERRIDES).exists():
        raise TakenError(f"the folder {shown(path)} holds a run that is no sweep; choose another run=NAME")
    return RunFolder(path, created=False, lock=locked(path), fresh=False)
