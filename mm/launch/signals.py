"""Handlers of the signals that stop a program, set while it runs jobs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class SignalHandlers:
    """Context manager that handles SIGINT (Ctrl-C) and SIGTERM with a function, and restores the handlers on exit.

    Outside of the main thread it sets no handlers, because Python allows them in the main thread only.

    Args:
        answer: Function called on each signal with the number of signals received so far, starting at 1.

    Attributes:
        caught: Numbers of the received signals, in order.
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
        """Record a signal, and call the function."""
        self.caught.append(number)
        self.answer(len(self.caught))
