"""A job: the words of an `mm` command, and the run folder that the command writes."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal

from mm.files import shown
from mm.runs.folder import override_key, read_overrides

# Overrides in which a job may differ from what lies in its folder, and yet resume it.
OVERRIDABLE_KEYS = ("run", "resume", "paths.outputs", "trainer.")
State = Literal["finished", "begun", "new"]


@dataclass(frozen=True)
class Job:
    """One command, which a `LocalPool` or a `SlurmQueue` runs.

    Args:
        command: The words behind `mm`: a verb, then its flags and overrides. They have to name `folder`, such as
            `["train", "seed=1", "run=sweep/1"]` for `outputs/sweep/1`.
        folder: The run folder that the command writes.
        label: What distinguishes the job from its siblings, for messages.
        number: Its index in a sweep.
        devices: How many devices the run uses; "auto" or -1 for all that there are.
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
        """The file for its output, beside its folder, which holds only what the run itself writes."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def state(self) -> State:
        """Whether its run has finished, has begun, or is new, by the contents of its folder.

        Raises:
            ValueError: If the folder holds another run.
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
        """Variables of its processes: the W&B group of its sweep, and whether a run that has begun is resumed."""
        begun = {"MM_RESTART_COUNT": "1"} if self.state == "begun" else {}
        return {"WANDB_RUN_GROUP": self.folder.parent.name, "HYDRA_FULL_ERROR": "0", **begun}

    def describe(self, event: str) -> str:
        """Return one line about the job, such as `outputs/sweep/1  seed=1: starts`."""
        return f"{shown(self.folder)}  {self.label}{': ' if self.label else ''}{event}"


def identity(words: Iterable[str], free: tuple[str, ...] = OVERRIDABLE_KEYS) -> set[str]:
    """Return the overrides that define a run.

    Args:
        words: Flags and overrides of a command. Flags, and settings of Hydra itself, are left out.
        free: Keys that are left out as well; one that ends in a dot stands for all keys below it.
    """
    rooms = ("hydra.", "hydra/", *(key for key in free if key.endswith(".")))
    overrides = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    return {o for o in overrides if override_key(o) not in free and not override_key(o).startswith(rooms)}


def log_tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log that are not empty; of a progress bar its last state."""
    if not log.exists():
        return ""
    with log.open(encoding="utf-8", errors="replace", newline="\n") as file:
        texts = (line.rstrip().rpartition("\r")[2] for line in file)
        return "\n".join(deque((text for text in texts if text), lines))
