"""Handling of the signals that end a run, by all of its processes."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Ctrl-C, a stop by a scheduler or operator, a closed terminal, and warnings before a time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Seconds within which the same signal counts once: GNU timeout sends it to its child, and then to the whole group.
REPEAT = 1.0
UNHEARD = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(SystemExit):
    """Raised when a signal has ended the run. The exit status is that of a process which the signal has terminated.

    Args:
        signum: Number of the signal.
        together: Whether all processes of the run have agreed to stop, so that each ends by itself.
    """

    def __init__(self, signum: int, together: bool = False):
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum).name
        self.together = together
        self.reported = False  # whether the run has printed its final message


class Stopper:
    """Signal handler that raises `Stopped` in the main thread.

    A second signal ends the process immediately, unless it arrives within `REPEAT` seconds. In a forked process the
    handler does nothing.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.signum = 0  # the first signal that came, 0 while there is none
        self.since = 0.0  # when it came, on the monotonic clock

    def __call__(self, signum: int, frame: Any) -> None:
        if os.getpid() != self.owner:
            return
        if not self.signum:
            self.begin(signum)
            raise Stopped(signum)
        if time.monotonic() - self.since > REPEAT:
            os._exit(128 + signum)

    def begin(self, signum: int) -> None:
        """Record that the process is about to end because of a signal."""
        self.signum, self.since = signum, time.monotonic()


@contextmanager
def stopping() -> Iterator[Stopper]:
    """Context manager in which every signal without a handler raises `Stopped`; the handlers are restored at the end.

    Yields:
        The handler, which has the received signal.
    """
    stopper = Stopper()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers can be set in the main thread only
        before = {signum: signal.getsignal(signum) for signum in SIGNALS if signal.getsignal(signum) in UNHEARD}
    for signum in before:
        signal.signal(signum, stopper)
    try:
        yield stopper
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def answer_parent_only() -> None:
    """In a worker process, ignore the signals that end a run, except a SIGTERM that the parent process sends.

    Ctrl-C, `timeout`, `docker stop` and `scancel` signal the whole process group. The main process still needs its
    workers to finish the step, and ends them afterwards. Workers of torch end by themselves when their parent has
    ended.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform != "linux":  # only there can a process learn who sent the signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a signal that is ignored could not be waited for
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True, name="terminate").start()


def tell(text: str) -> None:
    """Write a line to standard error from a signal handler, in which `print` is not safe."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="replace"))
