"""A job: an `mm` command and the run folder that it writes."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal

from mm.files import shown
from mm.runs.folder import override_key, read_overrides

# Keys that may differ between a job and the run in its folder which it resumes; `trainer.` stands for all below it.
OVERRIDABLE_KEYS = ("run", "resume", "paths.outputs", "trainer.")
State = Literal["finished", "begun", "new"]


@dataclass(frozen=True)
class Job:
    """A command that a `LocalPool` or a `SlurmQueue` runs.

    Args:
        command: The words after `mm`: a verb, its flags and its overrides. They must name `folder`, such as `["train",
            "seed=1", "run=sweep/1"]` for `outputs/sweep/1`.
        folder: The run folder that the command writes.
        label: What distinguishes the job from the other jobs of its sweep, for messages.
        number: Index of the job in its sweep.
        devices: Number of devices that the run uses; "auto" or -1: all.
        on_cpu: Whether the run uses no GPU.
    """

    command: list[str]
    folder: Path
    label: str = ""
    number: int = 0
    devices: int | str = 1
    on_cpu: bool = False

    @property
    def log(self) -> Path:
        """Return the path of the log file, next to the run folder, which contains only the files of the run."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def state(self) -> State:
        """Return whether the run is new, has begun or is finished, according to the files in its folder.

        Raises:
            ValueError: If the folder contains another run.
        """
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return "new"
        stored = read_overrides(self.folder)
        before, now = identity(stored), identity(self.command[1:])
        if before != now:
            was, wanted = (" ".join(sorted(a - b)) for a, b in permutations((before, now)))
            raise ValueError(
                f"the run folder {shown(self.folder)} holds another run (there: {was or '-'}; now: {wanted or '-'}); "
                "choose another run=NAME, type the command that was typed first, or delete it"
            )
        files = ["metrics.json", *(["model/model.safetensors"] if self.command[0] == "train" else [])]
        strict = OVERRIDABLE_KEYS[:-1]
        same = identity(stored, strict) == identity(self.command[1:], strict)
        return "finished" if same and all((self.folder / name).exists() for name in files) else "begun"

    @property
    def environment(self) -> dict[str, str]:
        """Return environment variables for the processes of the job.

        They set the W&B group to the sweep, and `MM_RESTART_COUNT` for a run that has begun, so that it is resumed.
        """
        begun = {"MM_RESTART_COUNT": "1"} if self.state == "begun" else {}
        return {"WANDB_RUN_GROUP": self.folder.parent.name, "HYDRA_FULL_ERROR": "0", **begun}

    def describe(self, event: str) -> str:
        """Return a line about the job, such as `outputs/sweep/1  seed=1: starts`."""
        return f"{shown(self.folder)}  {self.label}{': ' if self.label else ''}{event}"


def identity(words: Iterable[str], free: tuple[str, ...] = OVERRIDABLE_KEYS) -> set[str]:
    """Return the overrides that identify a run.

    Args:
        words: Flags and overrides of a command. Flags and Hydra's own settings are left out.
        free: Further keys to leave out; a key that ends in a dot stands for all keys below it.
    """
    rooms = ("hydra.", "hydra/", *(key for key in free if key.endswith(".")))
    overrides = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    return {o for o in overrides if override_key(o) not in free and not override_key(o).startswith(rooms)}


def log_tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log that are not empty. A progress bar counts as one line, with its last state."""
    if not log.exists():
        return ""
    with log.open(encoding="utf-8", errors="replace", newline="\n") as file:
        texts = (line.rstrip().rpartition("\r")[2] for line in file)
        return "\n".join(deque((text for text in texts if text), lines))
