"""Runs with several processes on one machine: the first error of any process is reported, and all processes end.

Rank 0 is the process of the command, which starts the other processes.
"""

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

REPORTS = "MM_REPORTS"  # variable with the folder for reports of failures; set only in processes started by rank 0
PARENT = "MM_PARENT"  # variable with the ID of the process that started this one
# Seconds in which rank 0 may notice by itself that another process has ended: immediately with gloo, later with NCCL.
GRACE = 20.0
STOP_GRACE = 4.0  # the same after a signal, since docker kills a container ten seconds after it has sent one
# Error messages of a process when another process has ended.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|tcpstore|socket", re.IGNORECASE)


class WorkerDiedError(Exception):
    """Another process of the run has failed. The message is its error, usually with a traceback.

    Args:
        text: The message.
        status: Exit status of the run.
    """

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


class ProcessMonitor(threading.Thread):
    """Thread that waits until a started process fails, and then ends the others and, if necessary, this process.

    Args:
        children: The processes that this process has started.
        folder: Folder in which they report why they ended.

    Attributes:
        failed: Event that is set when a process has failed.
        over: Event that is set when the run has ended.
        status: Exit status of the run, after a process has failed.
        text: The reason of the failure.
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
        """Kill all started processes.

        None of them can continue alone, and during a collective they handle no other signal than SIGKILL.
        """
        kill(self.children)

    def close(self) -> None:
        """Stop monitoring, wait up to 30 seconds for the other processes to end, and kill the remaining ones."""
        self.over.set()
        deadline = time.monotonic() + 30
        while any(child.poll() is None for child in self.children) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def kill(processes: Sequence[subprocess.Popen]) -> None:
    """Kill processes, and wait until they have ended."""
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()


exit_hooks: list[Callable[[Stopped | None], None]] = []  # called before the current job exits immediately
monitors: list[ProcessMonitor] = []  # the monitor of the current job, if it has started processes


@contextmanager
def process_group(
    explain: Callable[[Exception], str | None], leave: Callable[[Stopped | None], None]
) -> Iterator[None]:
    """Context manager around a job that may start processes, or that runs in a process that another one has started.

    Args:
        explain: Function that returns the message for an error that the user has made; None for any other error.
        leave: Function called before the process exits because another process has failed while the main thread waits
            for it.

    Raises:
        ValueError: If another process has failed because of an error that the user has made.
        WorkerDiedError: If another process has failed with any other error.
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
    """Return the root cause of an error: the error of another process whose end caused it, or else itself."""
    for monitor in monitors:
        if monitor.failed.wait(GRACE if is_lost_worker(error) else 0) and not isinstance(error, ValueError):
            return ValueError(monitor.text) if monitor.status == 2 else WorkerDiedError(monitor.text, monitor.status)
        monitor.over.set()
        monitor.kill()  # before this process closes its connections, which the others would report as errors
    return error


def is_lost_worker(error: Exception) -> bool:
    """Return whether an error only means that the connection to another process is lost."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


def report(error: Exception, explain: Callable[[Exception], str | None]) -> None:
    """Write an error into a file for rank 0, and exit. It is called in a process that rank 0 has started.

    If the error only means that another process has ended, rank 0 gets time to end this process first.

    Args:
        error: The error.
        explain: Function that returns the message for an error that the user has made; None for any other error.
    """
    if is_lost_worker(error):
        time.sleep(2 * GRACE)  # rank 0, which knows the reason, ends this process
    message = explain(error)
    leave_report(2 if message else 1, message or "".join(traceback.format_exception(error)).rstrip())


def leave_report(status: int, text: str) -> None:
    """Write an exit status and a reason into a file for rank 0, and exit immediately.

    Args:
        status: Exit status.
        text: The reason.
    """
    folder = Path(os.environ[REPORTS])
    if folder.is_dir():  # otherwise rank 0 has ended
        with whole(folder / f"{os.getpid()}.json") as part:
            part.write_text(json.dumps({"status": status, "text": text}), encoding="utf-8")
    sys.stdout.flush()
    os._exit(status)  # immediately, since other threads and the shutdown of the interpreter may deadlock


def end_with_parent(parent: int) -> None:
    """Wait until the parent process has ended, and then exit immediately."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def exit_reason(codes: Sequence[int | None], folder: Path) -> tuple[int, str]:
    """Return why a run has ended.

    Args:
        codes: Exit statuses of the started processes; None for those that still run.
        folder: Folder with their reports.

    Returns:
        The exit status of the run, and the reason.
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
    """Context manager that passes the ID of this process and a folder for reports to the processes started in it.

    Yields:
        The folder in which the processes report why they ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="mm-"))
    os.environ |= {REPORTS: str(folder), PARENT: str(os.getpid())}
    try:
        yield folder
    finally:
        del os.environ[REPORTS], os.environ[PARENT]
