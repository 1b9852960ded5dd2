"""Preparation of a command's environment: closed standard streams, unsupported characters, and an ASCII locale."""

import io
import os
import sys
from pathlib import Path


def settle() -> None:
    """Make a command work with any locale and with closed standard streams.

    A closed stream is connected to the null device. Otherwise the next opened file would get its number, and the output
    of other processes would be written into it. Characters that a stream does not support are printed as escapes, such
    as `\\xe9`.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave_ascii() -> None:
    """Restart this command in Python's UTF-8 mode if the locale supports ASCII only, as in many containers.

    Libraries open files in the encoding of the locale, and file names with other characters could not be opened at all.
    The process keeps its ID, and its children inherit the mode. Output keeps the encoding of the terminal. A command
    that was called from another Python program is not restarted.
    """
    program = sys.orig_argv[1:]
    own = bool(program) and (Path(program[0]).name == "mm" or program[:2] == ["-m", "mm"])
    if not own or sys.getfilesystemencoding() != "ascii":
        return
    env = {"PYTHONIOENCODING": "ascii:backslashreplace"} | dict(os.environ) | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *program], env)
