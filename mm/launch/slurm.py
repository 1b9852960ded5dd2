"""Execution of jobs on a Slurm cluster through submitit, as an array of jobs whose processes are Slurm tasks."""

import logging
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm.extras import require
from mm.files import shown
from mm.launch.job import Job, log_tail

POLL = 5  # seconds between two queries of the queue
# Final states of a job; "": Slurm no longer knows the job, which is the case a few minutes after its end.
ENDED = ("", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
logger = logging.getLogger("mm")


@dataclass
class SlurmRequest:
    """Options of sbatch for each job of a sweep. For an option that is None, the default of the cluster applies.

    Args:
        nodes: Number of nodes per job.
        gpus_per_node: Number of GPUs per node.
        tasks_per_node: Number of processes per node; None: one per GPU.
        cpus_per_task: Number of cores per process.
        mem_gb: Memory per node, in GiB.
        timeout_min: Time limit in minutes.
        partition: Slurm's partition.
        account: Slurm's account.
        qos: Slurm's quality of service.
        constraint: Features that the nodes must have.
        requeue: Number of times that a job is continued after its time limit; 0: it is continued neither after the time
            limit nor after pre-emption.
        signal: Signal that is sent before the end: USR2 or USR1.
        signal_delay_s: Seconds between that signal and the time limit.
        array_parallelism: Maximum number of jobs that run at the same time.
        setup: Shell commands to run before a job starts, such as `module load cuda`.
        additional_parameters: Other options of sbatch.
        wait: Whether to wait until the jobs have ended.
    """

    nodes: int = 1
    gpus_per_node: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    requeue: int = 100
    signal: str = "USR2"
    signal_delay_s: int = 120
    array_parallelism: int = 256
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    wait: bool = True

    @property
    def tasks(self) -> int:
        """Return the number of processes per node; by default, one per GPU."""
        return self.tasks_per_node or self.gpus_per_node or 1

    def sbatch(self) -> dict[str, Any]:
        """Return the options under the names of submitit, without those that are None."""
        options = {
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
            "setup": None if self.setup is None else list(self.setup),
            # If a process fails, the whole job ends. If the cluster kills a job, Slurm requeues it.
            "srun_args": ["--kill-on-bad-exit=1"],
            "additional_parameters": {"requeue" if self.requeue else "no-requeue": True}
            | dict(self.additional_parameters),
        }
        return {name: value for name, value in options.items() if value is not None}


class SlurmTask:
    """Callable that submitit runs in every task of a job, and runs again when the job was requeued."""

    def __init__(self, argv: list[str], environment: dict[str, str]):
        self.argv = argv
        self.environment = environment

    def __call__(self) -> None:
        """Run the command in this process."""
        os.environ.pop("WANDB_RUN_ID", None)  # it identifies a single run
        os.environ.update(self.environment)
        sys.argv = ["mm", *self.argv]
        runpy.run_module("mm", run_name="__main__")

    def checkpoint(self) -> Any:
        """Return the same task for another submission.

        submitit calls this method in the first task when the job is pre-empted or reaches its time limit.
        """
        return require("submitit.helpers", "slurm").DelayedSubmission(self)


class SlurmQueue:
    """Queue that runs jobs on a Slurm cluster.

    Args:
        request: Options of each job; default: `SlurmRequest()`.
        report: Function called with a line of text for each event; None: the lines are logged by the logger `mm`.
    """

    def __init__(self, request: SlurmRequest | None = None, report: Callable[[str], None] | None = None):
        self.request = request or SlurmRequest()
        self.report = report or logger.info

    def run(self, jobs: Sequence[Job], resume: bool = False) -> list[str]:
        """Submit the jobs that are not finished, and wait until they end if `request.wait` is set.

        Args:
            jobs: The jobs, each with its own run folder.
            resume: Whether to resume jobs that have begun; none of them may be queued or running.

        Returns:
            For each job the reason why it failed, with the end of its log; "" if it has finished, or if it is not
            waited for.

        Raises:
            ValueError: If Slurm is not available or rejects the jobs, if a setting is invalid, or if a folder is in use
                and `resume` is False.
        """
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ValueError(
                "hydra/launcher=slurm: there is no sbatch and srun here; type it on a machine of the cluster"
            )
        if self.request.signal not in ("USR1", "USR2"):
            raise ValueError(f"signal: got '{self.request.signal}', wanted USR1 or USR2")
        begun = [job for job in jobs if job.state != "new"]
        if begun and not resume:
            raise ValueError(
                f"the run folder {shown(begun[0].folder)} is not empty; choose another run=NAME, or, if no job of it "
                "is queued or running any more, go on with resume=true"
            )
        left = [job for job in jobs if job.state != "finished"]
        ids = submit(self.request, left) if left else []
        logs = jobs[0].folder.parent / "slurm"
        for job, name in zip(left, ids):
            self.report(job.describe(f"is Slurm's job {name}"))
        if left:
            self.report(
                f"logs: {shown(logs)}/JOB_TASK_log.out and .err; stop them with: scancel {ids[0].split('_')[0]}"
            )
        errors = self.wait(dict(zip(ids, left)), logs) if self.request.wait else {}
        return [errors.get(job.number, "") for job in jobs]

    def wait(self, jobs: dict[str, Job], logs: Path) -> dict[int, str]:
        """Wait until all jobs have ended, and will not be requeued.

        Args:
            jobs: Slurm's job ID to job.
            logs: Folder of the logs.

        Returns:
            Index of each failed job to the reason.
        """
        waiting, errors = dict(jobs), {}
        while waiting:
            time.sleep(POLL)
            for name, state in query_states(list(waiting)).items():
                if state not in ENDED:
                    continue
                job = waiting.pop(name)
                well = state == "COMPLETED" or (state == "" and (job.folder / "metrics.json").exists())
                self.report(job.describe("finished" if well else f"ended as {state or 'unknown'}"))
                if not well:
                    log = logs / f"{name}_0_log.err"
                    errors[job.number] = (
                        f"Slurm job {name} ended as {state or 'unknown'}; the end of {shown(log)}:\n{log_tail(log)}"
                    )
        return errors


def submit(request: SlurmRequest, jobs: Sequence[Job]) -> list[str]:
    """Submit jobs as an array, and return Slurm's job IDs."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = request.signal  # submitit reads it on import, here and in the job
    submitit = require("submitit", "slurm")
    failed = require("submitit.core.utils", "slurm").FailedJobError

    folder = jobs[0].folder.parent / "slurm"
    executor = submitit.SlurmExecutor(folder, max_num_timeout=request.requeue)
    try:
        executor.update_parameters(**request.sbatch())
        submitted = executor.submit_array([SlurmTask(job.command, job.environment) for job in jobs])
    except failed as error:
        lines = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
        raise ValueError("Slurm refuses the job: " + " ".join(lines or [str(error)])) from None
    return [job.job_id for job in submitted]


def query_states(names: Sequence[str]) -> dict[str, str]:
    """Return the state of each job by its ID; "" for a job that Slurm no longer knows.

    The result is empty if Slurm does not respond.
    """
    mains = ",".join(sorted({name.split("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", "--jobs", mains]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return {}
    states = dict(line.split() for line in answer.stdout.splitlines())
    return {name: states.get(name, "") for name in names}
