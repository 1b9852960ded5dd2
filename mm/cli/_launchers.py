"""Hydra's launchers of many jobs: on Slurm, and on the devices of one machine."""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mm.cli import _jobs, _pool, _slurm


class Processes(Launcher):
    """A job is a command line, `mm VERB OVERRIDES run=SWEEP/NUMBER`, in processes of its own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.command: list[str] = task_function.command  # type: ignore[attr-defined]
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        configs = [self.loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        own = [[*overrides, *self.more(config, overrides)] for config, overrides in zip(configs, job_overrides)]
        common = set.intersection(*map(set, own))
        jobs = [
            _jobs.build(self.command, config, overrides, number, common)
            for number, (config, overrides) in enumerate(zip(configs, own), initial_job_idx)
        ]
        return _jobs.results(jobs, self.run(jobs, configs))

    def more(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        """What the launcher adds to a job's overrides. Errors: ValueError where it contradicts them."""
        return []

    @abstractmethod
    def run(self, jobs: list[_jobs.Job], configs: list[DictConfig]) -> list[str]:
        """Run the jobs to their end. -> of each, why it failed, or "" """


@dataclass
class Slurm(_slurm.Request, Processes):
    """Jobs as Slurm tasks, through submitit."""

    def more(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        return _slurm.trainer_overrides(self, config, overrides)

    def run(self, jobs: list[_jobs.Job], configs: list[DictConfig]) -> list[str]:
        return _slurm.run(self, jobs, any(config.get("resume") is True for config in configs))


class LocalPool(Processes):
    """Jobs on this machine, each on devices of its own.

    gpus: as torch counts them, or their ids, all that are visible where null; slots: jobs at once, where null one per
    GPU (of a job of several GPUs: per so many), or without GPUs one per core; retries: how often a job that fails is
    tried again
    """

    def __init__(self, slots: int | None, gpus: Sequence[int | str] | None, retries: int):
        self.slots = slots
        self.gpus = gpus
        self.retries = retries

    def run(self, jobs: list[_jobs.Job], configs: list[DictConfig]) -> list[str]:
        return _pool.Pool(_pool.shares(configs, self.slots, self.gpus), self.retries).run(jobs)


def register() -> None:
    """Let Hydra know them. It accepts a launcher from a package called hydra_plugins only, and looks it up by name."""
    hydra = Plugins.instance()  # which has looked for others by now
    plugins = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    sys.modules["hydra_plugins.mm"] = sys.modules[__name__]
    setattr(plugins, "mm", sys.modules[__name__])  # noqa: B010
    for launcher in (Slurm, LocalPool):
        launcher.__module__ = "hydra_plugins.mm"
        hydra.register(launcher)
