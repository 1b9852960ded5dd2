"""Standard output and standard error that a command outlives: whoever reads them may go away."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# A pipe without a reader (`mm train | head -1`), a terminal that was closed.
GONE = (errno.EPIPE, errno.EIO)


class Lasting(io.FileIO):
    """A file descriptor that is connected to the null device as soon as nobody can read what is written to it.

    Args:
        descriptor: Number of the file descriptor, which stays open when this object is closed.
        note: What to write to standard error when that happens, "" for nothing.
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
        os.dup2(null, self.fileno())  # for child processes and libraries that write to the descriptor as well
        os.close(null)
        if self.note:
            print(self.note, file=sys.stderr)
        return memoryview(data).nbytes


@contextmanager
def lasting_output(note: str) -> Iterator[None]:
    """Let this process outlive the readers of its output.

    Args:
        note: What standard error says when standard output has lost its reader, "" for nothing.
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
    """The same stream over a `Lasting` descriptor; a stream that somebody else has put in its place stays.

    Args:
        stream: What is written to at the moment.
        own: The stream that the interpreter opened at its start, None where the descriptor was closed.
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
