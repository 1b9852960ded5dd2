"""Handlers of the signals that stop a program, for as long as it runs jobs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class SignalHandlers:
    """A context in which Ctrl-C and SIGTERM are answered by a function; the handlers before it are put back.

    In a thread that is not the main one nothing is set, as Python allows handlers there only.

    Args:
        answer: Called with the number of the signals that have come so far, 1 for the first.

    Attributes:
        caught: Numbers of the signals that came, in order.
    """

    def __init__(self, answer: Callable[[int], None]):
        self.answer = answer
        self.caught: list[int] = []
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "SignalHandlers":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, and answer it."""
        self.caught.append(number)
        self.answer(len(self.caught))
