"""Messages that rooms log, on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Print what rooms log at level WARNING and above to standard error, a line each, without a prefix."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    log = logging.getLogger("mm")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
