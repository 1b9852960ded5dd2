"""The origin of a config: the command, or the call from Python, that composed it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from mm.messages import command
from mm.runs.folder import override_key, write_overrides


class NamedKey(NamedTuple):
    """A config key that was set on purpose, by the user or by an experiment.

    Attributes:
        key: The dotted key.
        by: Description of its origin for error messages, such as "experiment=first".
        typed: Whether the user typed it.
    """

    key: str
    by: str
    typed: bool


@dataclass(frozen=True)
class Provenance:
    """The command of a run. `mm.cli` builds it from Hydra's state, which no other package reads.

    Attributes:
        verb: Name of the subcommand, such as "train".
        flags: Hydra's flags that set config folders or names, each in the form NAME=VALUE.
        overrides: The overrides of the command; for a run from Python, the settings that differ from the defaults.
        named: The keys that the overrides or the chosen experiment set.
        choices: Config group to its chosen option.
        job: Index of the job in its sweep; None if there is no sweep.
        from_python: Whether the run was started from Python instead of by a command.
    """

    verb: str = "train"
    flags: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    named: tuple[NamedKey, ...] = ()
    choices: Mapping[str, str | None] = field(default_factory=dict)
    job: int | None = None
    from_python: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of the command; for a run from Python, the name of the function."""
        return (f"mm.{self.verb}",) if self.from_python else ("mm", self.verb, *self.typed)

    @property
    def typed(self) -> tuple[str, ...]:
        """Return the flags and overrides of the command."""
        return (*self.flags, *self.overrides)

    def save(self, folder: Path) -> None:
        """Write overrides.yaml into the folder of a run that is about to start, for resuming and for `mm compare`."""
        write_overrides(folder, self.verb, self.typed)


def resume_command(cfg: DictConfig, folder: Path, provenance: Provenance, *overrides: str) -> str:
    """Return the command that resumes a run.

    Args:
        cfg: The config of the run.
        folder: The run folder.
        provenance: The command that started the run.
        *overrides: Further overrides of the command.
    """
    moved = [word for word in provenance.overrides if override_key(word) == "paths.outputs"]
    run = os.path.relpath(folder, cfg.paths.outputs)
    return command("mm", "train", f"run={run}", *moved, "resume=true", *overrides)
