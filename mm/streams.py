"""The machine around a command: standard streams that are closed or can't show a letter, and an ASCII locale."""

import io
import os
import sys
from pathlib import Path


def settle() -> None:
    """Let a command run whatever the locale is and whichever standard streams are closed.

    A closed stream leads to nowhere: else the next file that is opened would take its number, and what other processes
    print would be written into it. What a stream can't show is printed as an escape, such as `\\xe9`.
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
    """Start this command again in Python's UTF-8 mode where the locale knows only ASCII, as in many containers.

    Other libraries open files in the locale's encoding, and names of files with other letters could not be opened at
    all. The process keeps its id; its children inherit the mode. What is printed stays in the encoding of the terminal.
    A command that another program has started within itself is left alone.
    """
    program = sys.orig_argv[1:]
    own = bool(program) and (Path(program[0]).name == "mm" or program[:2] == ["-m", "mm"])
    if not own or sys.getfilesystemencoding() != "ascii":
        return
    env = {"PYTHONIOENCODING": "ascii:backslashreplace"} | dict(os.environ) | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *program], env)
