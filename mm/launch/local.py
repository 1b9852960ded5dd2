"""Execution of jobs on one machine, in parallel: one process per job, with its own devices."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

from mm.files import shown
from mm.launch.job import Job, log_tail
from mm.launch.signals import SignalHandlers
from mm.signals import Stopped

GRACE = 60  # seconds in which a job can save its checkpoint after Ctrl-C, before it is killed
VERBS_WITHOUT_METRICS = ("embed", "shard")  # verbs that write no metrics.json
USER_ERROR = 2  # exit status after a mistake of the user, which another attempt would repeat
logger = logging.getLogger("mm")


class LocalPool:
    """Pool that runs jobs on this machine in parallel, each in its own process.

    Example:
        >>> jobs = [Job(["train", f"seed={s}", f"run=seeds/{s}"], Path(f"outputs/seeds/{s}")) for s in range(4)]
        >>> errors = LocalPool(gpus=[0, 1]).run(jobs)  # doctest: +SKIP

    Args:
        slots: Number of jobs that run at the same time; None: as many as there are GPUs for, or, without GPUs, cores.
        gpus: GPUs for the jobs: indices, counted among those of CUDA_VISIBLE_DEVICES if it is set, or IDs.
        retries: Number of times that a failed job is started again.
        report: Function called with a line of text for each event; None: the lines are logged by the logger `mm`.
        program: The command that runs a job, to which the words of the job are appended.
    """

    def __init__(
        self,
        slots: int | None = None,
        gpus: Sequence[int | str] = (),
        retries: int = 1,
        report: Callable[[str], None] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "mm"),
    ):
        self.slots = slots
        self.gpus = gpus
        self.retries = retries
        self.report = report or logger.info
        self.program = program
        self.running: set[subprocess.Popen] = set()
        self.stopped = 0.0  # time of the first signal on the monotonic clock; 0: no signal yet

    def run(self, jobs: Sequence[Job]) -> list[str]:
        """Run the jobs that are not finished, and wait until they end. A job that has begun is resumed.

        Args:
            jobs: The jobs, each with its own run folder.

        Returns:
            For each job the reason why it failed, with the end of its log; "" if it has finished.

        Raises:
            ValueError: If a folder contains another run, or if a job needs more devices than there are.
            Stopped: After Ctrl-C or SIGTERM, when every job has ended. The same call resumes them.
        """
        states = [job.state for job in jobs]  # raises an error before any job starts, if a folder contains another run
        slots = allocate_slots(jobs, self.slots, self.gpus)
        free: SimpleQueue[dict[str, str]] = SimpleQueue()
        for environment in slots:
            free.put(environment)
        self.report(f"{len(jobs)} jobs, {states.count('finished')} of them finished; {len(slots)} at once")
        with SignalHandlers(self.stop) as signals, ThreadPoolExecutor(len(slots)) as threads:
            errors = list(threads.map(lambda job: self.run_one(job, free), jobs))
        if signals.caught:
            raise Stopped(signals.caught[0])
        return errors

    def run_one(self, job: Job, free: "SimpleQueue[dict[str, str]]") -> str:
        """Run a job as soon as a slot is free. Return the reason why it failed, or "".

        Args:
            job: The job.
            free: Queue of the environment variables of the free slots.
        """
        if self.stopped or job.state == "finished":
            return ""
        environment = free.get()
        try:
            with job.log.open("ab") as log:
                return self.attempt(job, environment, log)
        finally:
            free.put(environment)

    def attempt(self, job: Job, environment: dict[str, str], log: IO[bytes]) -> str:
        """Start a job, and start it again if it fails. Return the reason why it failed, or "".

        Args:
            job: The job.
            environment: Environment variables of its slot.
            log: Log file of the job, which is locked while any process of the job runs.
        """
        try:
            # Every process of the job keeps the log open, and thereby locked, even if this process is killed.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"a process of an earlier command still runs it (its log is {shown(job.log)})"
        status = 0
        for left in range(self.retries, -1, -1):
            begun, state = time.monotonic(), job.state
            gpus = environment.get("CUDA_VISIBLE_DEVICES")
            self.report(
                job.describe(f"{'goes on' if state == 'begun' else 'starts'}{f' on GPU {gpus}' if gpus else ''}")
            )
            status = self.wait(self.start(job, environment, log))
            seconds = f"{time.monotonic() - begun:.0f} s"
            if status == 0 and (job.command[0] in VERBS_WITHOUT_METRICS or (job.folder / "metrics.json").exists()):
                self.report(job.describe(f"finished in {seconds}"))
                return ""
            if self.stopped:
                self.report(job.describe(f"stopped after {seconds}"))
                return ""
            again = left > 0 and status != USER_ERROR
            self.report(job.describe(f"{describe_exit(status)} after {seconds}{', once more' if again else ''}"))
            if not again:
                break
        return f"{describe_exit(status)}; the end of {shown(job.log)}:\n{log_tail(job.log)}"

    def start(self, job: Job, environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen:
        """Start the process of a job in its own session, so that Ctrl-C in the terminal reaches only the pool."""
        inherited = {k: v for k, v in os.environ.items() if k != "WANDB_RUN_ID"}  # it identifies a single run
        return subprocess.Popen(
            [*self.program, *job.command],
            env=inherited | job.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, process: subprocess.Popen) -> int:
        """Wait until a process and the processes that it started have ended, and return its exit status."""
        self.running.add(process)
        if self.stopped:  # stopped while the process was being started
            process.terminate()
        while True:
            try:
                status = process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if self.stopped and time.monotonic() - self.stopped > GRACE:
                    kill_group(process)
        self.running.discard(process)
        kill_group(process)  # processes that a killed job has left
        return status

    def stop(self, signals: int) -> None:
        """Terminate all jobs, or kill them at the second signal.

        Args:
            signals: Number of signals received so far.
        """
        self.stopped = self.stopped or time.monotonic()
        for process in list(self.running):
            process.terminate() if signals == 1 else kill_group(process)


def describe_exit(status: int) -> str:
    """Describe the exit of a job that did not finish."""
    return f"failed with status {status}" if status else "ended without metrics.json"


def kill_group(process: subprocess.Popen) -> None:
    """Kill all remaining processes of a job."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def allocate_slots(jobs: Sequence[Job], slots: int | None, gpus: Sequence[int | str]) -> list[dict[str, str]]:
    """Allocate GPUs and cores to the slots in which jobs run.

    Every slot has the same number of GPUs: the largest number that a job needs.

    Args:
        jobs: The jobs.
        slots: Number of slots; None: as many as the GPUs, or without GPUs the cores, allow.
        gpus: As in `LocalPool`. Without GPUs, the slots share the cores.

    Returns:
        Environment variables of each slot.

    Raises:
        ValueError: If a job needs more GPUs than there are, or if a GPU or the number of slots is invalid.
    """
    chosen = resolve_gpus(gpus)
    widths = [len(chosen) if job.devices in (-1, "auto") else int(job.devices) for job in jobs]
    width = max(1, *widths)
    cores = len(os.sched_getaffinity(0))
    if chosen and width > len(chosen):
        raise ValueError(f"a job wants {width} devices (trainer.devices), there are {len(chosen)}: {', '.join(chosen)}")
    groups = [",".join(chosen[i : i + width]) for i in range(0, len(chosen) - width + 1, width)]
    count = slots if slots is not None else len(groups) or max(1, cores // width)
    if count < 1:
        raise ValueError(f"slots: got {slots}, wanted 1 or more")
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // (count * width))))}
    return [threads | ({"CUDA_VISIBLE_DEVICES": groups[i % len(groups)]} if groups else {}) for i in range(count)]


def resolve_gpus(gpus: Sequence[int | str]) -> list[str]:
    """Return the IDs of GPUs. An index counts the GPUs that are visible to this process, as in torch.

    Raises:
        ValueError: If an index is not below the number of GPUs in CUDA_VISIBLE_DEVICES.
    """
    ids = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    for gpu in gpus:
        if ids and isinstance(gpu, int) and not 0 <= gpu < len(ids):
            raise ValueError(
                f"gpus: got {gpu}, wanted 0 to {len(ids) - 1}: numbers count the GPUs of "
                f"CUDA_VISIBLE_DEVICES={','.join(ids)}"
            )
    return [ids[gpu] if ids and isinstance(gpu, int) else str(gpu) for gpu in gpus]
