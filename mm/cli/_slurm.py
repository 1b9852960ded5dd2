"""Many runs on a Slurm cluster, through submitit: an array of jobs, their processes Slurm's tasks."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.cli._app import parse, shown
from mm.cli._jobs import Job, tail

POLL = 5  # seconds between two looks at the queue
# States from which a job does not come back, "" where Slurm knows it no more: it forgets minutes after the end.
ENDED = ("", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


@dataclass
class Request:
    """What sbatch is asked for, each job of the sweep; see conf/hydra/launcher/slurm.yaml."""

    nodes: int
    gpus_per_node: int | None
    tasks_per_node: int | None
    cpus_per_task: int | None
    mem_gb: float | None
    timeout_min: int
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    requeue: int
    signal: str
    signal_delay_s: int
    array_parallelism: int
    prepare: list[str] | None
    additional_parameters: dict[str, Any]
    wait: bool

    @property
    def tasks(self) -> int:
        """Processes on a node: one per GPU, where nothing else is asked for."""
        return self.tasks_per_node or self.gpus_per_node or 1

    def sbatch(self) -> dict[str, Any]:
        """As submitit names it, what is null left out."""
        asked = {
            "job_name": "mm",
            "time": self.timeout_min,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks,
            "gpus_per_node": self.gpus_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem": None if self.mem_gb is None else f"{int(self.mem_gb * 1024)}MB",
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "signal_delay_s": self.signal_delay_s,
            "array_parallelism": self.array_parallelism,
            "setup": None if self.prepare is None else list(self.prepare),
            # A process that dies takes the job down, and a job that is killed by the cluster starts again by itself.
            "srun_args": ["--kill-on-bad-exit=1"],
            "additional_parameters": {"requeue" if self.requeue else "no-requeue": True}
            | dict(self.additional_parameters),
        }
        return {name: value for name, value in asked.items() if value is not None}


class Task:
    """What submitit starts in every task of a job, and starts again when the job was requeued."""

    def __init__(self, argv: list[str], environment: dict[str, str]):
        self.argv = argv
        self.environment = environment

    def __call__(self) -> None:
        from mm.cli import main

        os.environ.pop("WANDB_RUN_ID", None)  # which names one run
        os.environ.update(self.environment)
        sys.argv = ["mm", *self.argv]
        main()

    def checkpoint(self) -> Any:
        """Called by submitit in the first task when the job is pre-empted or at its time limit: the same once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def trainer_overrides(request: Request, config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Slurm's nodes and tasks, as Lightning wants to know them. Errors: ValueError where the trainer has others."""
    typed = {parse(o)[0] for o in overrides}
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


def run(request: Request, jobs: list[Job], resume: bool) -> list[str]:
    """Submit the jobs that are not finished, and wait for them. -> of each job why it failed, or ""

    Errors: ValueError where Slurm is not at hand or refuses, or a folder is in use and resume is false.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ValueError("hydra/launcher=slurm: there is no sbatch and srun here; type it on a machine of the cluster")
    if request.signal not in ("USR1", "USR2"):
        raise ValueError(f"hydra.launcher.signal: got '{request.signal}', wanted USR1 or USR2")
    begun = [job for job in jobs if job.state != "new"]
    if begun and not resume:
        raise ValueError(
            f"the run folder {shown(begun[0].folder)} is not empty; choose another run=NAME, or, if no job of it is "
            "queued or running any more, go on with resume=true"
        )
    left = [job for job in jobs if job.state != "finished"]
    ids = submit(request, left) if left else []
    logs = jobs[0].folder.parent / "slurm"
    for job, name in zip(left, ids):
        job.say(f"is Slurm's job {name}")
    if left:
        print(f"logs: {shown(logs)}/JOB_TASK_log.out and .err; stop them with: scancel {ids[0].split('_')[0]}")
    if not request.wait:
        return [""] * len(jobs)
    try:
        errors = wait(dict(zip(ids, left)), logs)
    except KeyboardInterrupt:
        print("the jobs go on without this command; see squeue", file=sys.stderr)
        raise SystemExit(130) from None
    return [errors.get(job.number, "") for job in jobs]


def submit(request: Request, jobs: list[Job]) -> list[str]:
    """-> Slurm's id of each job"""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = request.signal  # read when it is imported, here and in the job
    import submitit
    from submitit.core.utils import FailedJobError

    folder = jobs[0].folder.parent / "slurm"
    executor = submitit.SlurmExecutor(folder, max_num_timeout=request.requeue)
    try:
        executor.update_parameters(**request.sbatch())
        submitted = executor.submit_array([Task(job.command, job.environment) for job in jobs])
    except FailedJobError as error:
        said = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
        raise ValueError("Slurm refuses the job: " + " ".join(said or [str(error)])) from None
    return [job.job_id for job in submitted]


def wait(jobs: dict[str, Job], logs: Path) -> dict[int, str]:
    """Until all have ended for good. jobs: Slurm's id -> job. -> number of a job that failed -> why"""
    waiting, errors = dict(jobs), {}
    while waiting:
        time.sleep(POLL)
        for name, state in states(list(waiting)).items():
            if state not in ENDED:
                continue
            job = waiting.pop(name)
            well = state == "COMPLETED" or (state == "" and (job.folder / "metrics.json").exists())
            job.say("finished" if well else f"ended as {state or 'unknown'}")
            if not well:
                log = logs / f"{name}_0_log.err"
                errors[job.number] = (
                    f"Slurm job {name} ended as {state or 'unknown'}; the end of {shown(log)}:\n{tail(log)}"
                )
    return errors


def states(names: list[str]) -> dict[str, str]:
    """State of each job; "" of one that Slurm knows no more. Nothing where it does not answer now."""
    mains = ",".join(sorted({name.split("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", "--jobs", mains]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode and "Invalid job id" not in said.stderr:
        return {}
    found = dict(line.split() for line in said.stdout.splitlines())
    return {name: found.get(name, "") for name in names}
