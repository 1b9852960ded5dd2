"""Images and audio clips that are stored inside of a larger file, such as a shard."""

from collections.abc import Callable
from io import BytesIO


class StoredError(ValueError):
    """Raised if the larger file can't be read.

    The fault lies in this file and not in the sample, so the sample must not be skipped: that would hide the fault.
    """


class Stored:
    """A media file that is stored inside of a larger file; its bytes are read on demand.

    Args:
        name: Name of the media file, for error messages; it is also the result of `str`.
        read: Function that returns the bytes.
        seconds: Duration of an audio clip in seconds, known without reading it; 0: not known, or not an audio clip.
    """

    def __init__(self, name: str, read: Callable[[], bytes], seconds: float = 0.0):
        self.name = name
        self.read = read
        self.seconds = seconds

    def __str__(self) -> str:
        return self.name

    def open(self) -> BytesIO:
        """Return the bytes as a file object.

        Raises:
            StoredError: If the larger file can't be read.
        """
        return BytesIO(self.read())
