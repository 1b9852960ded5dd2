"""Pictures and sounds that lie in a larger file."""

from collections.abc import Callable
from io import BytesIO


class StoredError(ValueError):
    """The larger file is at fault, not the sample: leaving the sample out would hide it."""


class Stored:
    """The bytes of one media file, read when they are asked for; its text is how errors name it.

    seconds: of a sound, known without reading it.
    """

    def __init__(self, name: str, read: Callable[[], bytes], seconds: float = 0.0):
        self.name = name
        self.read = read
        self.seconds = seconds

    def __str__(self) -> str:
        return self.name

    def open(self) -> BytesIO:
        """As a file. Errors: StoredError where what it lies in can't be read."""
        return BytesIO(self.read())
