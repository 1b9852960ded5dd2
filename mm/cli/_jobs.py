"""What launchers of many jobs share: a job's command, what is left of an earlier try, and what came out."""

import json
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from mm.assembly.construct import read_resolved
from mm.cli import compare
from mm.cli._app import parse, shown
from mm.messages import plain
from mm.runs.folder import read_overrides

# Overrides in which a job may differ from what lies in its folder, and yet go on with it.
FREE = ("run", "resume", "paths.outputs", "trainer.")
# Of the user's own `hydra.*`, what belongs to the launching and not to a job.
LAUNCHING = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")


@dataclass(frozen=True)
class Job:
    """One run of a sweep. command: what follows `mm`; overrides: its own; label: what tells it from the others"""

    number: int
    folder: Path
    command: list[str]
    overrides: list[str]
    label: str

    @property
    def log(self) -> Path:
        """Beside its folder, which holds only what the run itself writes."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def state(self) -> str:
        """finished, begun or new, by what lies in its folder. Errors: ValueError where that is another run."""
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return "new"
        held = [o for o in read_overrides(self.folder) if not o.startswith("-")]  # Hydra's flags are the command's
        if what(held) != what(self.overrides):
            was, now = (" ".join(sorted(a - b)) for a, b in permutations((what(held), what(self.overrides))))
            raise ValueError(
                f"the run folder {shown(self.folder)} holds another run (there: {was or '-'}; now: {now or '-'}); "
                "choose another run=NAME, type the command that was typed first, or delete it"
            )
        left = ["metrics.json", *(["model/model.safetensors"] if self.command[0] == "train" else [])]
        done = all((self.folder / name).exists() for name in left) and what(held, free=FREE[:-1]) == what(
            self.overrides, FREE[:-1]
        )
        return "finished" if done else "begun"

    @property
    def environment(self) -> dict[str, str]:
        """A sweep is a group on W&B; a run that was begun goes on by itself; a mistake is one message."""
        begun = {"MM_RESTART_COUNT": "1"} if self.state == "begun" else {}
        return {"WANDB_RUN_GROUP": self.folder.parent.name, "HYDRA_FULL_ERROR": "0", **begun}

    def say(self, line: str) -> None:
        """One line on the screen."""
        sys.stdout.write(f"{shown(self.folder)}  {self.label}{': ' if self.label else ''}{line}\n")  # whole, of threads
        sys.stdout.flush()


def what(overrides: Iterable[str], free: tuple[str, ...] = FREE) -> set[str]:
    """The overrides that make a run what it is."""
    keys = tuple(key for key in free if key.endswith("."))
    return {o for o in overrides if parse(o)[0] not in free and not (keys and parse(o)[0].startswith(keys))}


def build(command: list[str], config: DictConfig, overrides: list[str], number: int, common: set[str]) -> Job:
    """The job that Hydra's own launcher would have run in hydra.sweep.dir/hydra.sweep.subdir.

    command: the verb and Hydra's flags; config: composed for this job; common: what all jobs of the sweep have.
    """
    config.hydra.job.num = number
    config.hydra.job.id = str(number)
    folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)).absolute()
    outputs = Path(config.paths.outputs).absolute()
    name = folder.relative_to(outputs) if folder.is_relative_to(outputs) else folder.name
    own = [o for o in overrides if parse(o)[0] not in ("run", "resume")]
    hydras = [o for o in config.hydra.overrides.hydra if not parse(o)[0].startswith(LAUNCHING)]
    places = [f"run={quoted(name)}", f"hydra.run.dir={quoted(folder)}"]
    return Job(number, folder, [*command, *hydras, *own, *places], own, " ".join(o for o in own if o not in common))


def quoted(value: Any) -> str:
    """A text as Hydra's grammar takes it whatever is in it."""
    return "'" + str(value).replace("'", r"\'") + "'"


def results(jobs: list[Job], errors: list[str]) -> list[JobReturn]:
    """Print the ranked table and what failed. -> what Hydra's sweepers want: the monitored metric, or the error"""
    sweep = jobs[0].folder.parent
    if any((job.folder / "metrics.json").exists() for job in jobs):
        compare.main([str(sweep)])
    failed = [job for job, error in zip(jobs, errors) if error]
    for job, error in zip(jobs, errors):
        if error:
            print(plain(f"{shown(job.folder)}: {error}", keep="\n"), file=sys.stderr)
    summary = ValueError(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(shown(j.folder) for j in failed)}")
    print(shown(sweep))
    return [returned(job, summary if error else None) for job, error in zip(jobs, errors)]


def returned(job: Job, error: Exception | None) -> JobReturn:
    """A job's result for Hydra's sweeper: the best value of the metric that was monitored."""
    if error is not None:
        return JobReturn(job.overrides, status=JobStatus.FAILED, _return_value=error)
    value, metrics, config = None, job.folder / "metrics.json", job.folder / "config.yaml"
    if metrics.exists() and config.exists():
        value = json.loads(metrics.read_text(encoding="utf-8")).get(read_resolved(config)["monitor"]["metric"])
    return JobReturn(job.overrides, status=JobStatus.COMPLETED, _return_value=value)


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log that say something."""
    if not log.exists():
        return ""
    with log.open(encoding="utf-8", errors="replace", newline="\n") as file:
        whole = (line.rstrip().rpartition("\r")[2] for line in file)  # of a bar only its last state
        return "\n".join(deque((line for line in whole if line), lines))
