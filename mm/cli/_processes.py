"""One job in several processes of this machine: the first error of any of them is told once, and all of them end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mm.cli._mistakes import explain
from mm.files import whole
from mm.signals import SIGNALS, Stopped

REPORTS = "MM_REPORTS"  # the folder in which a started process leaves why it failed; set for those alone
PARENT = "MM_PARENT"  # the id of the process that started it
GRACE = 20.0  # seconds in which the first process notices by itself that another is gone: with gloo at once, NCCL waits
STOP_GRACE = 4.0  # the same after a signal: docker kills ten seconds after it has sent one
# What a process gets to see when another one is gone.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|tcpstore|socket", re.IGNORECASE)


class Died(Exception):
    """Another process of this job has failed; the text is what it had to say, a traceback as a rule.

    Args:
        text: What to tell.
        status: The job's exit status.
    """

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


class Watch(threading.Thread):
    """Waits for the first of the started processes that fails, ends the others, and, if need be, this one."""

    def __init__(self, children: Sequence[subprocess.Popen], folder: Path):
        super().__init__(daemon=True, name="watch")
        self.children = list(children)
        self.folder = folder
        self.found = threading.Event()  # one has failed
        self.over = threading.Event()  # the job has ended
        self.status, self.text = 0, ""

    def run(self) -> None:
        while not self.over.wait(0.2):
            codes = [child.poll() for child in self.children]
            if any(codes):
                self.status, self.text = verdict(codes, self.folder)
                self.kill()
                self.found.set()
                stopped = self.status - 128 in SIGNALS
                if not self.over.wait(STOP_GRACE if stopped else GRACE):
                    for leave in leaving:
                        leave(Stopped(self.status - 128) if stopped else None)
                    print(f"mm: {self.text}", file=sys.stderr, flush=True)
                    os._exit(self.status)
                return

    def kill(self) -> None:
        """None of them can go on alone, and one in a collective hears no other signal."""
        kill(self.children)

    def close(self) -> None:
        """The job is over; those that are still at their own end get half a minute for it."""
        self.over.set()
        deadline = time.monotonic() + 30
        while any(child.poll() is None for child in self.children) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def kill(processes: Sequence[subprocess.Popen]) -> None:
    """End these processes, and wait until they are gone."""
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()


leaving: list[Callable[[Stopped | None], None]] = []  # what to do where the job at work has to end at once
watching: list[Watch] = []  # of the job at work: one, where it has started processes


@contextmanager
def joint(verb: str, leave: Callable[[Stopped | None], None]) -> Iterator[None]:
    """Around a job. Errors: its own, or, as ValueError (a user's mistake) or Died, that of another process.

    leave: what to do where the job has to end while the main thread waits for another process in vain.
    """
    leaving.append(leave)
    follower = REPORTS in os.environ
    if follower:
        threading.Thread(target=follow, args=(int(os.environ[PARENT]),), daemon=True).start()
    try:
        yield
    except Stopped as end:
        if follower and not end.together:
            leave_report(int(end.code or 0), f"stopped by {end.signal}")
        for watch in [] if end.together else watching:  # those that have not agreed to stop do not end by themselves
            watch.over.set()
            watch.kill()
        raise
    except Exception as error:
        if follower:
            report(error, verb)
        other = first(error)
        if other is error:
            raise
        raise other from None
    finally:
        leaving.remove(leave)
        while watching:
            watching.pop().close()


def first(error: Exception) -> Exception:
    """What to tell: the error of this process, or of that one whose end caused it."""
    for watch in watching:
        if watch.found.wait(GRACE if lost(error) else 0) and not isinstance(error, ValueError):
            return ValueError(watch.text) if watch.status == 2 else Died(watch.text, watch.status)
        watch.over.set()
        watch.kill()  # before this process lets go of the others, which would tell of that
    return error


def lost(error: Exception) -> bool:
    """Whether this error says no more than that another process is gone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


def report(error: Exception, verb: str) -> None:
    """In a started process: leave the error for the first process, which tells it, and end."""
    if lost(error):
        time.sleep(2 * GRACE)  # to be ended by the first process, which knows why
    message = explain(error, verb)
    leave_report(2 if message else 1, message or "".join(traceback.format_exception(error)).rstrip())


def leave_report(status: int, text: str) -> None:
    """In a started process: leave the reason for its end to the first process, and end."""
    folder = Path(os.environ[REPORTS])
    if folder.is_dir():  # else the first process has ended
        with whole(folder / f"{os.getpid()}.json") as part:
            part.write_text(json.dumps({"status": status, "text": text}), encoding="utf-8")
    sys.stdout.flush()
    os._exit(status)  # at once: other threads and an interpreter's end can wait for each other


def follow(parent: int) -> None:
    """End when the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def verdict(codes: Sequence[int | None], folder: Path) -> tuple[int, str]:
    """Exit statuses of the started processes, None while one runs -> the job's exit status, and what to say."""
    reports = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    if reports:
        said = json.loads(reports[0].read_text(encoding="utf-8"))
        return said["status"], said["text"]
    rank, code = next((rank, code) for rank, code in enumerate(codes, start=1) if code)
    if code - 128 in SIGNALS or -code in SIGNALS:  # it was stopped, before it could leave a report or during its end
        signum = abs(code) % 128
        return 128 + signum, f"process {rank} (of 0 to {len(codes)}) was stopped by {signal.Signals(signum).name}"
    if code > 0:
        return 1, f"process {rank} (of 0 to {len(codes)}) has ended with status {code}; what it said is above"
    name = signal.Signals(-code).name
    more = "; the system does that when memory runs out" if name == "SIGKILL" else ""
    return 1, f"process {rank} (of 0 to {len(codes)}) was ended by {name}{more}"


@contextmanager
def starting() -> Iterator[Path]:
    """While processes are started: they know whom they follow. -> the folder of their reports"""
    folder = Path(tempfile.mkdtemp(prefix="mm-"))
    os.environ |= {REPORTS: str(folder), PARENT: str(os.getpid())}
    try:
        yield folder
    finally:
        del os.environ[REPORTS], os.environ[PARENT]
