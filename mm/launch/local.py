"""Many jobs on one machine: a process each, on devices of its own, as many at once as there are devices."""

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

GRACE = 60  # seconds that a job has to save its checkpoint after Ctrl-C, before it is killed
VERBS_WITHOUT_METRICS = ("embed", "shard")  # whose jobs are finished without a metrics.json
USER_ERROR = 2  # exit status of a user's mistake, which a second try would repeat
logger = logging.getLogger("mm")


class LocalPool:
    """Runs jobs side by side on this machine, each in a process of its own.

    Example:
        >>> jobs = [Job(["train", f"seed={s}", f"run=seeds/{s}"], Path(f"outputs/seeds/{s}")) for s in range(4)]
        >>> errors = LocalPool(gpus=[0, 1]).run(jobs)  # doctest: +SKIP

    Args:
        slots: Jobs at once; None for one per GPU (of jobs of several GPUs: per so many), or, without GPUs, per core.
        gpus: GPUs to hand out: numbers, counted among those of CUDA_VISIBLE_DEVICES where it is set, or ids.
        retries: How often a job that fails is tried again.
        report: Called with a line whenever something happens; None for the logger `mm`.
        program: What runs a job, before the words of its command.
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
        self.stopped = 0.0  # when, on the monotonic clock

    def run(self, jobs: Sequence[Job]) -> list[str]:
        """Run the jobs that are not finished, and wait for their end. A job that has begun is resumed.

        Args:
            jobs: Commands with a run folder each.

        Returns:
            For each job why it failed, with the end of its log; "" for one that has finished.

        Raises:
            ValueError: If a folder holds another run, or a job wants more devices than there are.
            Stopped: After Ctrl-C or SIGTERM, once every job has ended. The same call resumes them.
        """
        states = [job.state for job in jobs]  # another run in one's folder is an error before any starts
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
        """Run a job in a free slot. Returns why it failed, or ""."""
        if self.stopped or job.state == "finished":
            return ""
        environment = free.get()
        try:
            with job.log.open("ab") as log:
                return self.attempt(job, environment, log)
        finally:
            free.put(environment)

    def attempt(self, job: Job, environment: dict[str, str], log: IO[bytes]) -> str:
        """Start a job, and again where it fails. Returns why it failed, or ""."""
        try:
            # Every process of the job holds the log open, and so the lock, also when this one has been killed.
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
        """Start the job's process as the first of a process group: Ctrl-C in the terminal reaches the pool alone."""
        inherited = {k: v for k, v in os.environ.items() if k != "WANDB_RUN_ID"}  # which names one run
        return subprocess.Popen(
            [*self.program, *job.command],
            env=inherited | job.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, process: subprocess.Popen) -> int:
        """Return the exit status of a process, once it and the processes that it started are gone."""
        self.running.add(process)
        if self.stopped:  # between the decision to start it and now
            process.terminate()
        while True:
            try:
                status = process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if self.stopped and time.monotonic() - self.stopped > GRACE:
                    kill_group(process)
        self.running.discard(process)
        kill_group(process)  # what a job that was killed has left
        return status

    def stop(self, signals: int) -> None:
        """Ask every job to end; kill them at the second signal."""
        self.stopped = self.stopped or time.monotonic()
        for process in list(self.running):
            process.terminate() if signals == 1 else kill_group(process)


def describe_exit(status: int) -> str:
    """Describe the exit of a job that is not finished."""
    return f"failed with status {status}" if status else "ended without metrics.json"


def kill_group(process: subprocess.Popen) -> None:
    """Kill every process of a job that is still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def allocate_slots(jobs: Sequence[Job], slots: int | None, gpus: Sequence[int | str]) -> list[dict[str, str]]:
    """Allocate GPUs and cores to the slots in which jobs run.

    Args:
        jobs: All of one width: the largest number of devices counts.
        slots: Their number; None for as many as the devices allow.
        gpus: As in `LocalPool`. Jobs that use none share the cores.

    Returns:
        Environment variables of each slot.

    Raises:
        ValueError: If a job wants more GPUs than there are, or a GPU or the number of slots is not valid.
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
    """Return the ids of GPUs: a number counts those that this process sees, as torch does.

    Raises:
        ValueError: If CUDA_VISIBLE_DEVICES has not so many.
    """
    ids = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    for gpu in gpus:
        if ids and isinstance(gpu, int) and not 0 <= gpu < len(ids):
            raise ValueError(
                f"gpus: got {gpu}, wanted 0 to {len(ids) - 1}: numbers count the GPUs of "
                f"CUDA_VISIBLE_DEVICES={','.join(ids)}"
            )
    return [ids[gpu] if ids and isinstance(gpu, int) else str(gpu) for gpu in gpus]
