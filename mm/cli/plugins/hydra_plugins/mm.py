"""Hydra's launchers of many jobs: adaptors of `mm.launch`. This folder is a portion of Hydra's namespace package."""

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

# Of the user's own `hydra.*`, what belongs to the launching and not to a job.
LAUNCHING = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")


class CommandLauncher(Launcher):
    """A launcher whose jobs are commands, `mm VERB OVERRIDES run=SWEEP/NUMBER`, in processes of their own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.command: list[str] = task_function.command  # type: ignore[attr-defined]
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run a sweep's jobs to their end, and print what came out."""
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
        """Return what the launcher adds to a job's overrides. Raises ValueError where it contradicts them."""
        return []

    @abstractmethod
    def run(self, jobs: list[Job], configs: list[DictConfig]) -> list[str]:
        """Run the jobs to their end. Returns for each why it failed, or ""."""


class Slurm(CommandLauncher):
    """Jobs as Slurm tasks, through submitit; the settings are those of `mm.launch.slurm.SlurmRequest`."""

    def __init__(self, **settings: Any):
        self.request = slurm.SlurmRequest(**settings)  # whose `setup` is not a launcher's

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
    """Jobs on this machine, each on devices of its own; see `mm.launch.LocalPool`, with `gpus=None` for all visible."""

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
    """Let messages about an argument name the key that sets it."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(("gpus: ", "slots: ", "signal: ")):
            raise ValueError(f"{room}{error}") from None
        raise


def visible_gpus() -> int:
    """Return how many GPUs this process may use."""
    import torch

    return torch.cuda.device_count()  # asks the driver, and takes no memory on any


def make_job(command: list[str], config: DictConfig, overrides: Sequence[str], number: int, common: set[str]) -> Job:
    """Make the job that Hydra's own launcher would have run in hydra.sweep.dir/hydra.sweep.subdir.

    Args:
        command: The verb, and Hydra's flags.
        config: Composed for this job.
        overrides: Of this job.
        number: Its index in the sweep.
        common: The overrides that all jobs of the sweep have.

    Raises:
        ValueError: If `trainer.devices` is no number.
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
    """Return a job's overrides but the name of the sweep."""
    return [o for o in overrides if parse_override(o)[0] not in ("run", "resume")]


def trainer_overrides(request: slurm.SlurmRequest, config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return Slurm's nodes and tasks as Lightning's settings. Raises ValueError where the trainer has others."""
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
    """Print a line as a whole: the threads of a pool print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def summarize(jobs: list[Job], overrides: list[list[str]], errors: list[str]) -> list[JobReturn]:
    """Print the ranked table and the failures, and return for Hydra's sweeper each job's metric or error."""
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
    """Return the best value of the metric that a job's run has monitored; None where it monitored none."""
    from mm.assembly.construct import read_resolved

    metrics, config = job.folder / "metrics.json", job.folder / "config.yaml"
    if not metrics.exists() or not config.exists():
        return None
    return json.loads(metrics.read_text(encoding="utf-8")).get(read_resolved(config)["monitor"]["metric"])
