"""Messages that rooms log: notes on standard output, warnings on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def print_log() -> Iterator[None]:
    """Print what rooms log at level INFO and above, a line each, without a prefix."""
    log = logging.getLogger("mm")
    notes, problems = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    notes.addFilter(lambda record: record.levelno < logging.WARNING)
    problems.setLevel(logging.WARNING)
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(notes)
    log.addHandler(problems)
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.removeHandler(problems)
        log.setLevel(before)
