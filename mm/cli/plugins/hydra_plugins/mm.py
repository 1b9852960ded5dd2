"""Hydra launchers that use `mm.launch`. This folder is a portion of Hydra's namespace package `hydra_plugins`."""

import json
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mm.assembly.overrides import parse_override, quote_override
from mm.files import shown
from mm.launch import local, slurm
from mm.launch.job import Job
from mm.messages import plain
from mm.signals import Stopped

# Prefixes of the user's overrides of `hydra.*` that concern the launcher and not a job.
LAUNCHING = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")


class CommandLauncher(Launcher):
    """Base class of launchers that run each job as a command, `mm VERB ... run=SWEEP/INDEX`, in its own process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.command: list[str] = task_function.command  # type: ignore[attr-defined]
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs of a sweep until they end, and print a summary.

        Args:
            job_overrides: Overrides of each job.
            initial_job_idx: Index of the first job in the sweep.
        """
        configs = [self.loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        lists = [[*overrides, *self.added(config, overrides)] for config, overrides in zip(configs, job_overrides)]
        common = set.intersection(*map(set, lists))
        jobs = [
            make_job(self.command, config, overrides, number, common)
            for number, (config, overrides) in enumerate(zip(configs, lists), initial_job_idx)
        ]
        with named("hydra.launcher."):
            errors = self.run(jobs, configs)
        return summarize(jobs, [without_run(overrides) for overrides in lists], errors)

    def added(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        """Return further overrides that the launcher sets for a job.

        Args:
            config: The config of the job.
            overrides: The overrides of the job.

        Raises:
            ValueError: If they contradict the config.
        """
        return []

    @abstractmethod
    def run(self, jobs: list[Job], configs: list[DictConfig]) -> list[str]:
        """Run the jobs until they end.

        Args:
            jobs: The jobs.
            configs: The config of each job.

        Returns:
            For each job the reason why it failed; "" if it has finished.
        """


class Slurm(CommandLauncher):
    """Launcher that runs jobs as Slurm tasks through submitit, with the settings of `mm.launch.slurm.SlurmRequest`."""

    def __init__(self, **settings: Any):
        self.request = slurm.SlurmRequest(**settings)  # not a base class, because its `setup` is not that of a launcher

    def added(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        return trainer_overrides(self.request, config, overrides)

    def run(self, jobs: list[Job], configs: list[DictConfig]) -> list[str]:
        try:
            resume = any(config.get("resume") is True for config in configs)
            return slurm.SlurmQueue(self.request, print_line).run(jobs, resume)
        except (KeyboardInterrupt, Stopped) as end:
            print("the jobs go on without this command; see squeue", file=sys.stderr)
            raise SystemExit(end.code if isinstance(end, Stopped) else 130) from None


class LocalPool(CommandLauncher):
    """Launcher that runs jobs on this machine, each with its own devices; see `mm.launch.LocalPool`.

    Args:
        slots: As in `mm.launch.LocalPool`.
        gpus: As in `mm.launch.LocalPool`; None: all visible GPUs, or none if all jobs run on the CPU.
        retries: As in `mm.launch.LocalPool`.
    """

    def __init__(self, slots: int | None, gpus: Sequence[int | str] | None, retries: int):
        self.slots = slots
        self.gpus = gpus
        self.retries = retries

    def run(self, jobs: list[Job], configs: list[DictConfig]) -> list[str]:
        gpus = self.gpus
        if gpus is None:
            gpus = [] if all(job.on_cpu for job in jobs) else range(visible_gpus())
        try:
            return local.LocalPool(self.slots, gpus, self.retries, print_line).run(jobs)
        except Stopped as end:
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(end.code) from None


@contextmanager
def named(room: str) -> Iterator[None]:
    """Context manager that completes the name of a launcher's argument in error messages to its config key."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(("gpus: ", "slots: ", "signal: ")):
            raise ValueError(f"{room}{error}") from None
        raise


def visible_gpus() -> int:
    """Return the number of GPUs that are visible to this process."""
    import torch

    return torch.cuda.device_count()  # asks the driver, and takes no memory on any


def make_job(command: list[str], config: DictConfig, overrides: Sequence[str], number: int, common: set[str]) -> Job:
    """Return the job that Hydra's own launcher would run in hydra.sweep.dir/hydra.sweep.subdir.

    Args:
        command: The verb and Hydra's flags.
        config: The config of the job.
        overrides: The overrides of the job.
        number: Index of the job in the sweep.
        common: The overrides that all jobs of the sweep have.

    Raises:
        ValueError: If `trainer.devices` is neither a number nor "auto".
    """
    config.hydra.job.num = number
    config.hydra.job.id = str(number)
    folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)).absolute()
    outputs = Path(config.paths.outputs).absolute()
    name = folder.relative_to(outputs) if folder.is_relative_to(outputs) else folder.name
    own = without_run(overrides)
    settings = [o for o in config.hydra.overrides.hydra if not parse_override(o)[0].startswith(LAUNCHING)]
    places = [f"run={quote_override(name)}", f"hydra.run.dir={quote_override(folder)}"]
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    if not isinstance(devices, int) and devices != "auto":
        raise ValueError(f"trainer.devices={devices}: hydra/launcher=local_pool hands out devices; give their number")
    return Job(
        [*command, *settings, *own, *places],
        folder,
        label=" ".join(o for o in own if o not in common),
        number=number,
        devices=devices,
        on_cpu=OmegaConf.select(config, "trainer.accelerator") == "cpu",
    )


def without_run(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a job without `run` and `resume`."""
    return [o for o in overrides if parse_override(o)[0] not in ("run", "resume")]


def trainer_overrides(request: slurm.SlurmRequest, config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return overrides that set the Trainer's nodes and devices to those of a Slurm request.

    Args:
        request: Options of the job.
        config: The config of the job.
        overrides: The overrides of the job.

    Raises:
        ValueError: If the Trainer is set to other numbers.
    """
    typed = {parse_override(o)[0] for o in overrides}
    added = []
    for key, ours, value in (
        ("trainer.num_nodes", "nodes", request.nodes),
        ("trainer.devices", "tasks_per_node", request.tasks),
    ):
        before = OmegaConf.select(config, key)
        if before not in (value, -1, "auto") and (key in typed or before != 1):
            raise ValueError(
                f"{key} is {before}, but hydra.launcher.{ours} is {value}; leave {key} out (it is taken from the "
                "launcher), or make them agree"
            )
        if before != value:
            added.append(f"{key}={value}")
    return added


def print_line(line: str) -> None:
    """Print a line and its line break in a single write, because several threads may print at the same time."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def summarize(jobs: list[Job], overrides: list[list[str]], errors: list[str]) -> list[JobReturn]:
    """Print a ranking of the runs and the reasons of failures, and return the results of the jobs for Hydra's sweeper.

    Args:
        jobs: The jobs.
        overrides: The overrides of each job.
        errors: For each job the reason why it failed; "" if it has finished.

    Returns:
        For each job the best value of its monitored metric, or its error.
    """
    from mm.cli import compare

    sweep = jobs[0].folder.parent
    if any((job.folder / "metrics.json").exists() for job in jobs):
        compare.main([str(sweep)])
    failed = [job for job, error in zip(jobs, errors) if error]
    for job, error in zip(jobs, errors):
        if error:
            print(plain(f"{shown(job.folder)}: {error}", keep="\n"), file=sys.stderr)
    summary = ValueError(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(shown(j.folder) for j in failed)}")
    print(shown(sweep))
    return [
        JobReturn(own, status=JobStatus.FAILED, _return_value=summary)
        if error
        else JobReturn(own, status=JobStatus.COMPLETED, _return_value=metric_of(job))
        for job, own, error in zip(jobs, overrides, errors)
    ]


def metric_of(job: Job) -> Any:
    """Return the best value of the metric that a job's run has monitored; None if the run has no such value."""
    from mm.assembly.construct import read_resolved

    metrics, config = job.folder / "metrics.json", job.folder / "config.yaml"
    if not metrics.exists() or not config.exists():
        return None
    return json.loads(metrics.read_text(encoding="utf-8")).get(read_resolved(config)["monitor"]["metric"])
