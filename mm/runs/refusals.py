"""Messages for errors in which the system refuses to write: a full disk, a read-only folder, or missing rights."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mm.files import FULL, SHARED_MEMORY, free_bytes, refusal, shown


@contextmanager
def refusals_explained(places: Mapping[str, str], folder: Path, resume: str | None) -> Iterator[None]:
    """Context manager around a job that turns such an error into a single message with advice.

    Args:
        places: Config key to the folder that it sets, for the advice.
        folder: The run folder.
        resume: The command that resumes the run; None for verbs that can't resume.

    Raises:
        ValueError: Instead of an error that is caused by a full disk, missing rights or the like.
    """
    try:
        yield
    except Exception as error:
        kept = resume if any((folder / "checkpoints").glob("*.ckpt")) else None
        message = explain_refusal(error, places, folder, kept)
        if message is None:
            raise
        raise ValueError(message) from error


def explain_refusal(
    error: BaseException, places: Mapping[str, str] | None = None, folder: Path | None = None, resume: str | None = None
) -> str | None:
    """Explain an error in which the operating system refused to write.

    Args:
        error: Any error.
        places: Config key to the folder that it sets, for the advice.
        folder: The folder that was written to, if the error does not name a file.
        resume: The command with which to resume afterwards.

    Returns:
        The message; None if the error has another cause.
    """
    if isinstance(error, RuntimeError) and SHARED_MEMORY.search(str(error)):
        return (
            "no space left in /dev/shm, through which the workers of the data loader hand over batches; enlarge it "
            "(docker run --shm-size=8g), or set datamodule.num_workers=0"
        )
    if "No usable temporary directory" in str(error):
        return "there is no folder for temporary files that can be written to; set TMPDIR=DIR"
    found = refusal(error, folder)
    if found is None:
        return None
    path = Path(found.filename) if found.filename else None
    what = os.strerror(found.errno or 0)
    if path is not None:
        what += f": {shown(path.absolute())}"
    key = place_of(path, places or {}) if path is not None else None
    if found.errno in FULL:
        if path is not None:
            what += f" ({free_bytes(path) / 1e6:.1f} MB are free)"
        advice = f"make room{f', or choose another disk with {key}=DIR' if key and not resume else ''}"
        return f"{what}; {advice}{f' and go on with: {resume}' if resume else ''}"
    advice = f"; choose another place with {key}=DIR" if key else ""
    return f"{what}{advice}{f'; then go on with: {resume}' if resume else ''}"


def place_of(path: Path, places: Mapping[str, str]) -> str | None:
    """Return the config key that sets the folder which contains a path; None if there is no such key.

    Args:
        path: The path.
        places: Config key to folder.
    """
    known = {key: Path(place).absolute() for key, place in places.items()} | {"TMPDIR": Path(tempfile.gettempdir())}
    inside = [(len(place.parts), key) for key, place in known.items() if path.absolute().is_relative_to(place)]
    return max(inside)[1] if inside else None
