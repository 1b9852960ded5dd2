"""Standard output and standard error that do not end the process if their reader closes, as in `mm train | head -1`."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

logger = logging.getLogger("mm")
# Errors of a pipe without a reader (`mm train | head -1`), and of a closed terminal.
GONE = (errno.EPIPE, errno.EIO)


class Lasting(io.FileIO):
    """A file descriptor that is redirected to the null device when its reader has closed.

    Args:
        descriptor: Number of the file descriptor, which stays open when this object is closed.
        note: Warning to log when that happens; "" for nothing.
    """

    def __init__(self, descriptor: int, note: str = ""):
        super().__init__(descriptor, "w", closefd=False)
        self.note = note

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # also for child processes and libraries
        os.close(null)
        if self.note:
            logger.warning(self.note)
        return memoryview(data).nbytes


@contextmanager
def lasting_output(note: str) -> Iterator[None]:
    """Context manager in which this process continues if the readers of its output close.

    Args:
        note: Warning to log when the reader of standard output has closed; "" for nothing.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = lasting(sys.stdout, sys.__stdout__, note)
    sys.stderr = lasting(sys.stderr, sys.__stderr__, "")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def lasting(stream: TextIO, own: TextIO | None, note: str) -> TextIO:
    """Return a stream over a `Lasting` descriptor; a stream that other code has replaced stays unchanged.

    Args:
        stream: The current stream.
        own: The stream that the interpreter opened at its start; None if the descriptor was closed.
        note: See `Lasting`.
    """
    if stream is None or stream is not own or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(stream.fileno(), note)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
