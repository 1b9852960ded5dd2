"""From a verb's arguments to its job, through Hydra: run folders, resuming, and what children of a job inherit."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mm.assembly.overrides import config_flags, flags_first, parse_override, strip_prefix
from mm.assembly.provenance import Provenance, resume_command
from mm.assembly.registry import signature_defaults
from mm.assembly.renamed import check_keys
from mm.cli._import_path import add_working_directory
from mm.cli._mistakes import explain
from mm.cli._provenance import read_provenance
from mm.cli._refusals import refusals_explained
from mm.cli._typed import as_meant, check_run, check_types
from mm.files import shown
from mm.launch.processes import process_group
from mm.messages import environment_number, is_first_process, near
from mm.runs.folder import OVERRIDES, RunFolder, claim, read_overrides, reopen
from mm.signals import Stopped

Job = Callable[[DictConfig, Path, Provenance], Any]  # of the config, the run folder, and how it was started

# What a launcher of processes leaves behind, and the next job of a sweep must not see.
RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
# Above 0 where a process may have been started again: it goes on with its run without being told to. torchrun's count
# of restarts would not do: a node whose own processes were well counts none (github.com/pytorch/pytorch/issues/108158).
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "MM_RESTART_COUNT")
# What a launcher that starts a run's processes side by side sets to their number.
BESIDE = ("SLURM_NTASKS", "WORLD_SIZE")
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
    argv = [*load_overrides(argv), *argv]
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
    state = HydraConfig.get()
    before = {name: os.environ.get(name) for name in RANKS}
    outer = sys.argv
    # Lightning starts a child with sys.argv and this hydra.run.dir; in a sweep both would start the whole sweep again.
    sys.argv = [*command, *state.overrides.task]
    claimed: RunFolder | None = None
    try:
        check_groups(cfg, state.runtime.choices)
        check_keys(cfg)
        check_values(cfg, command[1], state.overrides.task, state.runtime.choices)
        check_sibling_processes(state.overrides)
        claimed = open_folder(cfg, provenance.typed)
        with read_write(state), open_dict(state):  # type: ignore[arg-type]
            state.run.dir = state.runtime.output_dir = str(claimed.path)
        if claimed.fresh and is_first_process():
            provenance.save(claimed.path)  # a process that is started again must know its folder
        if "run" in cfg and Path(str(cfg.run)).name != claimed.path.name and state.mode == RunMode.RUN:
            cfg.run = os.path.relpath(claimed.path, cfg.paths.outputs)  # its time was taken
        resume = resume_command(cfg, claimed.path, provenance) if provenance.verb == "train" else None
        with (
            process_group(partial(explain, verb=command[1]), partial(leave, claimed)),
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
        restore(before)
    return result


def places(cfg: DictConfig) -> dict[str, str]:
    """Key -> the folder that it sets, of every folder that a job may write to."""
    keys = ("paths.outputs", "paths.cache", "out", "checkpoint")
    found = {key: OmegaConf.select(cfg, key, throw_on_missing=False) for key in keys}
    return {key: str(value) for key, value in found.items() if value is not None}


def check_groups(cfg: DictConfig, choices: Any) -> None:
    """Errors: ValueError where an option was chosen with a dot, or a key was added that nothing reads."""
    launcher = choices.get("hydra/launcher")
    if HydraConfig.get().mode == RunMode.RUN and launcher not in (None, "basic"):
        raise ValueError(f"hydra/launcher={launcher} launches the jobs of a sweep: type -m as well")
    for group in choices:
        chosen = OmegaConf.select(cfg, group.replace("/", "."), throw_on_missing=False)
        if isinstance(chosen, str):
            key = group.replace("/", ".")
            raise ValueError(f"{key}={chosen}: an option is chosen with a slash: {group}={chosen}")
    roots = {group.split("/")[0].split("@")[0] for group in choices} | {"callbacks", "logger"}  # chosen as lists
    for root in {
        key.split(".")[0] for o in HydraConfig.get().overrides.task for key in [parse_override(o)[0]] if o[0] == "+"
    }:
        if root.split("/")[0].split("@")[0] not in roots:
            known = [str(key) for key in cfg if key != root]
            raise ValueError(f"+{root}: nothing reads it; the keys are {', '.join(known)}{near(root, known)}")


def check_values(cfg: DictConfig, verb: str, overrides: Sequence[str], choices: Any) -> None:
    """Check the types of typed values. Errors: ValueError that names the key."""

    @cache
    def default() -> DictConfig:
        chosen = [o for o in overrides if parse_override(o)[0] in choices]
        return GlobalHydra.instance().config_loader().load_configuration(verb, chosen, RunMode.RUN)

    kept = [override for override in overrides if not override.startswith("~")]
    groups = {*choices, "callbacks", "logger"}  # the last two also as lists of options
    check_types(cfg, default, {key: value for key, value in map(parse_override, kept) if key not in groups})


def check_sibling_processes(overrides: Any) -> None:
    """Errors: ValueError where processes started side by side have no common folder, or can't be started again."""
    beside = max(environment_number(name, 1) for name in BESIDE)
    if beside > 1 and not any(
        parse_override(o)[0] in ("run", "hydra.run.dir") for o in [*overrides.task, *overrides.hydra]
    ):
        raise ValueError(f"run=NAME is needed where {beside} processes are started side by side: it is their folder")
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if environment_number("TORCHELASTIC_MAX_RESTARTS") and shares_store:  # github.com/pytorch/pytorch/issues/135712
        raise ValueError(
            "torchrun keeps the addresses of processes that have died, and those that it starts again may call them; "
            "type TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone ..., or leave --max-restarts out"
        )


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


def is_same_run(stored: Sequence[str], typed: Sequence[str]) -> bool:
    """Whether a process that was started again has the command that its folder's run was started with.

    A job of a pool may be given other settings of the trainer and other flags, with which its run goes on.
    """
    free = ("resume", "run", "paths.outputs")
    launched = bool(environment_number("MM_RESTART_COUNT"))  # by a launcher, which has compared the rest

    def own(words: Sequence[str]) -> set[str]:
        keys = {word: parse_override(word)[0] for word in words if not (launched and word.startswith("-"))}
        return {w for w, key in keys.items() if key not in free and not (launched and key.startswith("trainer."))}

    return bool(stored) and own(stored) == own(typed)


def leave(folder: RunFolder, error: BaseException | None = None) -> None:
    """Remove the folder of a job that failed before it made anything, so that its name is free again.

    Of a mistake that was found when training began, or a signal before the first checkpoint, how it began is all that
    the folder holds.
    """
    if is_first_process():
        folder.discard(begun=isinstance(error, ValueError | Stopped))


def restore(before: dict[str, str | None]) -> None:
    """End this job's process group and forget its ranks."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def load_overrides(argv: list[str]) -> list[str]:
    """For `run=NAME resume=true`, what NAME was started with, but what is given anew."""
    given = {key: value for arg in argv for key, value in [parse_override(arg)] if key}
    if given.get("resume") is not True or "run" not in given or {"-m", "--multirun"} & set(argv):
        return []
    if any(arg.startswith("hydra.run.dir=") for arg in argv):  # a child process, whose arguments are complete
        return []
    file = Path(str(given.get("paths.outputs", "outputs"))) / str(given["run"]) / OVERRIDES
    if not file.exists():
        raise ValueError(f"resume=true: there is no run in {file.parent}")
    return [o for o in read_overrides(file.parent) if parse_override(o)[0] not in given]
