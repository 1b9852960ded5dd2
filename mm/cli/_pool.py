"""Many runs on one machine: a process each, on devices of its own, as many at once as there are devices."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from mm.cli._app import shown
from mm.cli._jobs import Job, tail

GRACE = 60  # seconds that a job has to save its checkpoint after Ctrl-C, before it is killed
PROGRAM = [sys.executable, "-m", "mm"]
WITHOUT = ("embed", "shard")  # verbs that leave no metrics.json, without which a job of another is not finished
MISTAKE = 2  # exit status of a user's mistake, which a second try would repeat


class Pool:
    """Runs jobs side by side. joblib's threads are the engine; each waits for one job's process.

    shares: the environment of each slot; retries: how often a job that fails is tried again.
    """

    def __init__(self, shares: list[dict[str, str]], retries: int):
        self.shares = shares
        self.retries = retries
        self.running: set[subprocess.Popen] = set()
        self.stopped = 0.0  # when, on the monotonic clock

    def run(self, jobs: list[Job]) -> list[str]:
        """-> of each job why it failed, or "". SystemExit after a signal, once every job has ended."""
        from joblib import Parallel, delayed

        states = [job.state for job in jobs]  # another run in one's folder is told before any starts
        free: SimpleQueue[dict[str, str]] = SimpleQueue()
        for share in self.shares:
            free.put(share)
        print(f"{len(jobs)} jobs, {states.count('finished')} of them finished; {len(self.shares)} at once", flush=True)
        with self.answer_signals() as caught:
            engine: Any = Parallel(n_jobs=len(self.shares), backend="threading", batch_size=1)  # type: ignore[arg-type]
            errors: list[str] = engine(delayed(self.one)(job, free) for job in jobs)
        if caught:
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(128 + caught[0])
        return errors

    def one(self, job: Job, free: "SimpleQueue[dict[str, str]]") -> str:
        """One job in a free slot. -> why it failed, or "" """
        if self.stopped or job.state == "finished":
            return ""
        share = free.get()
        try:
            with job.log.open("ab") as log:
                return self.attempts(job, share, log)
        finally:
            free.put(share)

    def attempts(self, job: Job, share: dict[str, str], log: IO[bytes]) -> str:
        """Start it, and again where it fails. -> why it failed, or "" """
        try:
            # Every process of the job holds the log open, and so the lock, also when this one has been killed.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"a process of an earlier command still runs it (its log is {shown(job.log)})"
        status = 0
        for left in range(self.retries, -1, -1):
            begun, state = time.monotonic(), job.state
            where = f" on GPU {share['CUDA_VISIBLE_DEVICES']}" if share.get("CUDA_VISIBLE_DEVICES") else ""
            job.say(f"{'goes on' if state == 'begun' else 'starts'}{where}")
            status = self.wait(start(job, share, log))
            seconds = f"{time.monotonic() - begun:.0f} s"
            if status == 0 and (job.command[0] in WITHOUT or (job.folder / "metrics.json").exists()):
                job.say(f"finished in {seconds}")
                return ""
            if self.stopped:
                job.say(f"stopped after {seconds}")
                return ""
            again = left > 0 and status != MISTAKE
            job.say(f"{how(status)} after {seconds}{', once more' if again else ''}")
            if not again:
                break
        return f"{how(status)}; the end of {shown(job.log)}:\n{tail(job.log)}"

    def wait(self, process: subprocess.Popen) -> int:
        """Its exit status, once it and what it started are gone."""
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

    @contextmanager
    def answer_signals(self) -> Iterator[list[int]]:
        """Ctrl-C and SIGTERM end every job in peace, the second one at once. -> the signals that came"""
        caught: list[int] = []

        def answer(number: int, frame: Any) -> None:
            caught.append(number)
            self.stopped = self.stopped or time.monotonic()
            for process in list(self.running):
                process.terminate() if len(caught) == 1 else kill_group(process)

        before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield caught
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start(job: Job, share: dict[str, str], log: IO[bytes]) -> subprocess.Popen:
    """The job's process, the first of a group of its own: Ctrl-C in the terminal reaches the pool alone."""
    env = {k: v for k, v in os.environ.items() if k != "WANDB_RUN_ID"}  # which names one run
    return subprocess.Popen(
        [*PROGRAM, *job.command],
        env=env | job.environment | share,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def how(status: int) -> str:
    """A job that is not finished has ended."""
    return f"failed with status {status}" if status else "ended without metrics.json"


def kill_group(process: subprocess.Popen) -> None:
    """End every process of the job that is still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def shares(configs: list[DictConfig], slots: int | None, gpus: Sequence[int | str] | None) -> list[dict[str, str]]:
    """The environment of each slot: its GPUs, and its part of the cores.

    Errors: ValueError where a job wants more GPUs than there are.
    """
    wanted = [OmegaConf.select(config, "trainer.devices", default=1) for config in configs]
    for devices in wanted:
        if not isinstance(devices, int) and devices != "auto":
            raise ValueError(
                f"trainer.devices={devices}: hydra/launcher=local_pool hands out devices; give their number"
            )
    on_cpu = all(OmegaConf.select(config, "trainer.accelerator") == "cpu" for config in configs)
    found = chosen_gpus(gpus) if gpus is not None else [] if on_cpu else visible_gpus()
    every = [len(found) if devices in (-1, "auto") else devices for devices in wanted]
    width = max(1, *every)  # devices of a job
    cores = len(os.sched_getaffinity(0))
    if found and width > len(found):
        raise ValueError(f"a job wants {width} devices (trainer.devices), there are {len(found)}: {', '.join(found)}")
    groups = [",".join(found[i : i + width]) for i in range(0, len(found) - width + 1, width)]
    count = slots if slots is not None else len(groups) or max(1, cores // width)
    if count < 1:
        raise ValueError(f"hydra.launcher.slots: got {slots}, wanted 1 or more")
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // (count * width))))}
    return [threads | ({"CUDA_VISIBLE_DEVICES": groups[i % len(groups)]} if groups else {}) for i in range(count)]


def listed_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]


def chosen_gpus(gpus: Sequence[int | str]) -> list[str]:
    """Ids of those that were typed: a number counts those that this process sees, as torch does.

    Errors: ValueError where CUDA_VISIBLE_DEVICES has not so many.
    """
    ids = listed_gpus()
    for gpu in gpus:
        if ids and isinstance(gpu, int) and not 0 <= gpu < len(ids):
            raise ValueError(
                f"hydra.launcher.gpus: got {gpu}, wanted 0 to {len(ids) - 1}: numbers count the GPUs of "
                f"CUDA_VISIBLE_DEVICES={','.join(ids)}"
            )
    return [ids[gpu] if ids and isinstance(gpu, int) else str(gpu) for gpu in gpus]


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    import torch

    ids = listed_gpus()
    count = torch.cuda.device_count()  # asks the driver, and takes no memory on any
    return ids[:count] if ids else [str(i) for i in range(count)]
