"""From a verb's arguments to its job, through Hydra: run folders, resuming, and what children of a job inherit."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mm.assembly.config_checks import check_data_files, check_groups, check_values
from mm.assembly.former_configs import check_keys
from mm.assembly.former_overrides import resumed_overrides
from mm.assembly.overrides import config_flags, flags_first, is_same_run, parse_override, strip_prefix
from mm.assembly.provenance import Provenance, resume_command
from mm.assembly.registry import signature_defaults
from mm.cli._import_path import add_working_directory
from mm.cli._mistakes import explain
from mm.cli._provenance import read_provenance
from mm.cli._typed import as_meant, check_run
from mm.files import shown
from mm.launch.environment import check_sibling_processes, read_ranks, restore_ranks
from mm.launch.processes import process_group
from mm.messages import environment_number, is_first_process
from mm.runs.folder import RunFolder, claim, read_overrides, reopen
from mm.runs.refusals import refusals_explained
from mm.signals import Stopped

Job = Callable[[DictConfig, Path, Provenance], Any]  # of the config, the run folder, and how it was started

# Above 0 where a process may have been started again: it goes on with its run without being told to. torchrun's count
# of restarts would not do: a node whose own processes were well counts none (github.com/pytorch/pytorch/issues/108158).
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "MM_RESTART_COUNT")
NEW: set[Path] = set()  # typed run folders that were not there before Hydra created them
SWEEPS: list[tuple[RunFolder, set[str]]] = []  # the folder of the sweep at work, and what was in it when it began
PLUGINS = str(Path(__file__).parent / "plugins")
LEASE = 120.0  # seconds after which a file server has given up the locks of a machine that died (90 s in NFS 4)


class RefusedError(BaseException):
    """Carries an error out of a callback of Hydra's, which makes a warning of every Exception."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def launch(verb: str, argv: list[str], job: Job) -> None:
    """Compose the verb's config and run its job, or, under -m, its jobs."""
    program = sys.argv[0]
    sweep = bool({"-m", "--multirun"} & set(argv))
    argv = [as_meant(strip_prefix(arg), sweep) for arg in argv]
    for key, value in map(parse_override, argv):
        if key == "run":
            check_run(value)
    argv = [*resumed_overrides(verb, argv), *argv]
    flags = config_flags(argv)
    sys.argv = [program, *flags_first(argv)]
    register_launchers()
    add_working_directory()

    failed: list[Exception] = []

    def wrapped(cfg: DictConfig) -> Any:
        try:
            return run_job(cfg, [program, verb, *flags], read_provenance(verb, flags), job)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra names the job and goes on with the others
            failed.append(error)

    wrapped.command = [verb, *flags]  # type: ignore[attr-defined]  # for launchers that start jobs as commands
    try:
        with signature_defaults():
            hydra.main(config_path="pkg://mm.conf", config_name=verb, version_base="1.3")(wrapped)()
    except RefusedError as refused:
        raise refused.error from None
    finally:
        NEW.clear()
        while SWEEPS:
            folder, _ = SWEEPS.pop()
            folder.discard()
            folder.release()
    if failed:
        raise failed[0]


def register_launchers() -> None:
    """Let Hydra know our launchers, which are a portion of its namespace package `hydra_plugins`."""
    if PLUGINS not in sys.path:
        sys.path.append(PLUGINS)
    launchers = import_module("hydra_plugins.mm")
    plugins = Plugins.instance()
    for launcher in (launchers.Slurm, launchers.LocalPool):  # found by now, unless another program has looked before
        plugins.register(launcher)


def run_job(cfg: DictConfig, command: list[str], provenance: Provenance, job: Job) -> Any:
    """One job, in its own folder."""
    state, verb = HydraConfig.get(), provenance.verb
    before = read_ranks()
    outer = sys.argv
    # Lightning starts a child with sys.argv and this hydra.run.dir; in a sweep both would start the whole sweep again.
    sys.argv = [*command, *state.overrides.task]
    claimed: RunFolder | None = None
    try:
        launcher = state.runtime.choices.get("hydra/launcher")
        if state.mode == RunMode.RUN and launcher not in (None, "basic"):
            raise ValueError(f"hydra/launcher={launcher} launches the jobs of a sweep: type -m as well")
        check_groups(cfg, provenance.overrides, provenance.choices)
        check_keys(cfg)
        if not cfg.get("resume"):  # a run that is finished needs no data
            check_data_files(cfg)  # before `check_values`, which imports the classes of typed values
        check_values(cfg, verb, provenance.overrides, provenance.choices)
        check_sibling_processes([*provenance.overrides, *state.overrides.hydra])
        claimed = open_folder(cfg, provenance.typed)
        with read_write(state), open_dict(state):  # type: ignore[arg-type]
            state.run.dir = state.runtime.output_dir = str(claimed.path)
        if claimed.fresh and is_first_process():
            provenance.save(claimed.path)  # a process that is started again must know its folder
        if "run" in cfg and Path(str(cfg.run)).name != claimed.path.name and state.mode == RunMode.RUN:
            cfg.run = os.path.relpath(claimed.path, cfg.paths.outputs)  # its time was taken
        resume = resume_command(cfg, claimed.path, provenance) if verb == "train" else None
        with (
            process_group(partial(explain, verb=verb), partial(leave, claimed)),
            refusals_explained(places(cfg), claimed.path, resume),
        ):
            result = job(cfg, claimed.path, provenance)
        if is_first_process():
            claimed.discard()  # of a verb that wrote nothing into it
    except BaseException as error:
        if claimed is not None:
            leave(claimed, error)
        raise
    finally:
        if claimed is not None:
            claimed.release()
        sys.argv = outer
        restore_ranks(before)
    return result


def places(cfg: DictConfig) -> dict[str, str]:
    """Key -> the folder that it sets, of every folder that a job may write to."""
    keys = ("paths.outputs", "paths.cache", "out", "checkpoint")
    found = {key: OmegaConf.select(cfg, key, throw_on_missing=False) for key in keys}
    return {key: str(value) for key, value in found.items() if value is not None}


def open_folder(cfg: DictConfig, typed: Sequence[str]) -> RunFolder:
    """The folder that this job works in: claimed for a new run, opened again for one that goes on.

    Args:
        cfg: The composed config; `resume` is set where a process was started again after its run had begun.
        typed: Config flags and overrides of this command.

    Raises:
        ValueError: If the folder is another run's, or there is nothing to resume.
    """
    state = HydraConfig.get()
    folder, resume = folder_of(cfg), cfg.get("resume")
    if not isinstance(resume, bool | None):
        raise ValueError(f"resume: got '{resume}', wanted true or false")
    restarted = any(environment_number(name) for name in RESTARTS)
    if restarted and is_same_run(read_overrides(folder), typed):
        kept = any((folder / "checkpoints").glob("*.ckpt"))
        if resume is not None:
            cfg.resume = kept
        if is_first_process():
            print(f"started again: {'goes on' if kept else 'no checkpoint yet, begins anew'} in {shown(folder)}")
        return reopen(folder, LEASE) if is_first_process() else RunFolder(folder, False, None, False)
    if not is_first_process():
        return RunFolder(folder, False, None, False)
    if resume:
        return reopen(folder)
    if state.mode == RunMode.MULTIRUN:
        return claim(folder, typed=True, resumable=resume is not None, created=any(is_new(*s, folder) for s in SWEEPS))
    default = is_default_name(cfg) and state.run.dir == "."
    return claim(folder, not default, resumable=resume is not None, created=folder.absolute() in NEW)


def folder_of(cfg: DictConfig) -> Path:
    """The run folder that the config asks for."""
    state = HydraConfig.get()
    if state.mode == RunMode.MULTIRUN or state.run.dir != ".":
        return Path(state.runtime.output_dir)
    return Path(cfg.paths.outputs, str(cfg.run)).absolute()


def is_default_name(cfg: DictConfig) -> bool:
    """Whether nobody has named the run: its name is only the time at which it was started."""
    return "${now:" in str(OmegaConf.to_container(cfg, resolve=False).get("run"))  # type: ignore[union-attr]


def is_new(sweep: RunFolder, before: set[str], job: Path) -> bool:
    """Whether a sweep's own Hydra has created a job's folder, and not an earlier sweep in the same folder."""
    root = sweep.path.absolute()
    return job.is_relative_to(root) and job.relative_to(root).parts[0] not in before


def leave(folder: RunFolder, error: BaseException | None = None) -> None:
    """Remove the folder of a job that failed before it made anything, so that its name is free again.

    Of a mistake that was found when training began, or a signal before the first checkpoint, how it began is all that
    the folder holds.
    """
    if is_first_process():
        folder.discard(begun=isinstance(error, ValueError | Stopped))
