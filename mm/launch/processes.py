"""One job in several processes of this machine: the first error of any of them is reported, and all of them end."""

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

from mm.files import whole
from mm.signals import SIGNALS, Stopped, tell

REPORTS = "MM_REPORTS"  # the folder in which a started process leaves why it failed; set for those alone
PARENT = "MM_PARENT"  # the id of the process that started it
GRACE = 20.0  # seconds in which the first process notices by itself that another is gone: with gloo at once, NCCL waits
STOP_GRACE = 4.0  # the same after a signal: docker kills ten seconds after it has sent one
# What a process gets to see when another one is gone.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|tcpstore|socket", re.IGNORECASE)


class WorkerDiedError(Exception):
    """Another process of this job has failed; the text is its error, with a traceback as a rule.

    Args:
        text: The message.
        status: The job's exit status.
    """

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


class ProcessMonitor(threading.Thread):
    """Waits for the first of the started processes that fails, ends the others, and, if need be, this one.

    Args:
        children: The processes that this one has started.
        folder: Where they leave the reasons for their end.

    Attributes:
        failed: Set when one of them has failed.
        over: Set when the job has ended.
        status: The job's exit status, once one has failed.
        text: The reason.
    """

    def __init__(self, children: Sequence[subprocess.Popen], folder: Path):
        super().__init__(daemon=True, name="monitor")
        self.children = list(children)
        self.folder = folder
        self.failed = threading.Event()
        self.over = threading.Event()
        self.status, self.text = 0, ""

    def run(self) -> None:
        while not self.over.wait(0.2):
            codes = [child.poll() for child in self.children]
            if any(codes):
                self.status, self.text = exit_reason(codes, self.folder)
                self.kill()
                self.failed.set()
                stopped = self.status - 128 in SIGNALS
                if not self.over.wait(STOP_GRACE if stopped else GRACE):
                    for leave in exit_hooks:
                        leave(Stopped(self.status - 128) if stopped else None)
                    tell(f"mm: {self.text}")
                    os._exit(self.status)
                return

    def kill(self) -> None:
        """Kill all of them: none can go on alone, and one in a collective answers no other signal."""
        kill(self.children)

    def close(self) -> None:
        """End with the job; processes that are still at their own end get half a minute for it."""
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


exit_hooks: list[Callable[[Stopped | None], None]] = []  # called where the job at work has to end at once
monitors: list[ProcessMonitor] = []  # of the job at work: one, where it has started processes


@contextmanager
def process_group(
    explain: Callable[[Exception], str | None], leave: Callable[[Stopped | None], None]
) -> Iterator[None]:
    """Surround a job that may start processes, or is one of those.

    Args:
        explain: Returns the message of a user's mistake, None for any other error.
        leave: Called where the job has to end while the main thread waits for another process in vain.

    Raises:
        ValueError: A user's mistake in another process.
        WorkerDiedError: Any other error of another process.
    """
    exit_hooks.append(leave)
    started = REPORTS in os.environ
    if started:
        threading.Thread(target=end_with_parent, args=(int(os.environ[PARENT]),), daemon=True).start()
    try:
        yield
    except Stopped as end:
        if started and not end.together:
            leave_report(int(end.code or 0), f"stopped by {end.signal}")
        for monitor in [] if end.together else monitors:  # those that have not agreed to stop do not end by themselves
            monitor.over.set()
            monitor.kill()
        raise
    except Exception as error:
        if started:
            report(error, explain)
        cause = first_error(error)
        if cause is error:
            raise
        raise cause from None
    finally:
        exit_hooks.remove(leave)
        while monitors:
            monitors.pop().close()


def first_error(error: Exception) -> Exception:
    """Return the error of this process, or that of the process whose end caused it."""
    for monitor in monitors:
        if monitor.failed.wait(GRACE if is_lost_worker(error) else 0) and not isinstance(error, ValueError):
            return ValueError(monitor.text) if monitor.status == 2 else WorkerDiedError(monitor.text, monitor.status)
        monitor.over.set()
        monitor.kill()  # before this process lets go of the others, which would report that
    return error


def is_lost_worker(error: Exception) -> bool:
    """Return whether an error says no more than that another process is gone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


def report(error: Exception, explain: Callable[[Exception], str | None]) -> None:
    """In a started process: leave the error for the first process, which reports it, and end."""
    if is_lost_worker(error):
        time.sleep(2 * GRACE)  # to be ended by the first process, which knows why
    message = explain(error)
    leave_report(2 if message else 1, message or "".join(traceback.format_exception(error)).rstrip())


def leave_report(status: int, text: str) -> None:
    """In a started process: leave the reason for its end to the first process, and end."""
    folder = Path(os.environ[REPORTS])
    if folder.is_dir():  # else the first process has ended
        with whole(folder / f"{os.getpid()}.json") as part:
            part.write_text(json.dumps({"status": status, "text": text}), encoding="utf-8")
    sys.stdout.flush()
    os._exit(status)  # at once: other threads and an interpreter's end can wait for each other


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def exit_reason(codes: Sequence[int | None], folder: Path) -> tuple[int, str]:
    """Find out why a job has ended.

    Args:
        codes: Exit statuses of the started processes, None while one runs.
        folder: Where they have left their reports.

    Returns:
        The job's exit status, and the reason.
    """
    reports = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    if reports:
        report = json.loads(reports[0].read_text(encoding="utf-8"))
        return report["status"], report["text"]
    rank, code = next((rank, code) for rank, code in enumerate(codes, start=1) if code)
    if code - 128 in SIGNALS or -code in SIGNALS:  # it was stopped, before it could leave a report or during its end
        signum = abs(code) % 128
        return 128 + signum, f"process {rank} (of 0 to {len(codes)}) was stopped by {signal.Signals(signum).name}"
    if code > 0:
        return 1, f"process {rank} (of 0 to {len(codes)}) has ended with status {code}; its output is above"
    name = signal.Signals(-code).name
    more = "; the system does that when memory runs out" if name == "SIGKILL" else ""
    return 1, f"process {rank} (of 0 to {len(codes)}) was ended by {name}{more}"


@contextmanager
def report_folder() -> Iterator[Path]:
    """While processes are started: give them the id of this one, and a folder for their reports, which it yields."""
    folder = Path(tempfile.mkdtemp(prefix="mm-"))
    os.environ |= {REPORTS: str(folder), PARENT: str(os.getpid())}
    try:
        yield folder
    finally:
        del os.environ[REPORTS], os.environ[PARENT]
