"""From a verb's arguments to its job, through Hydra: run folders, resuming, and what children of a job inherit."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

Job = Callable[[DictConfig, Path], Any]

# What a launcher of processes leaves behind, and the next job of a sweep must not see.
RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
OVERRIDES = "overrides.yaml"


def launch(verb: str, argv: list[str], job: Job) -> None:
    """Compose the verb's config and run its job, or, under -m, its jobs."""
    program = sys.argv[0]
    argv = [bare(arg) for arg in argv]
    sys.argv = [program, *remembered(argv), *argv]
    flags = config_flags(argv)

    failed: list[Exception] = []

    def wrapped(cfg: DictConfig) -> Any:
        try:
            return run_job(cfg, [program, verb, *flags], job)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra names the job and goes on with the others
            failed.append(error)

    hydra.main(config_path="pkg://conf", config_name=verb, version_base="1.3")(wrapped)()
    if failed:
        raise failed[0]


def run_job(cfg: DictConfig, command: list[str], job: Job) -> Any:
    """One job, in its own folder."""
    state = HydraConfig.get()
    folder = Path(state.runtime.output_dir)
    overrides = list(state.overrides.task)
    before = {name: os.environ.get(name) for name in RANKS}
    outer = sys.argv
    # Lightning starts a child with sys.argv and this hydra.run.dir; in a sweep both would start the whole sweep again.
    sys.argv = [*command, *overrides]
    with read_write(state), open_dict(state):  # type: ignore[arg-type]
        state.run.dir = str(folder)
    try:
        if is_first_process():
            check_folder(folder, cfg.get("resume", False))
            (folder / OVERRIDES).write_text(yaml.safe_dump(overrides, allow_unicode=True))
        result = job(cfg, folder)
    except Exception:
        leave_nothing(folder)
        raise
    finally:
        sys.argv = outer
        restore(before)
    return result


def is_first_process() -> bool:
    """Whether this process is the one that writes: the others were started by it, or beside it by a launcher."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def check_folder(folder: Path, resume: bool) -> None:
    """Errors: ValueError where a new run would write into an old one's folder, or there is nothing to resume."""
    old = any(folder.iterdir())
    if old and not resume:
        raise ValueError(
            f"the run folder {shown(folder)} is not empty; choose another run=NAME, "
            "go on with resume=true, or delete it"
        )
    if resume and not (folder / OVERRIDES).exists():
        raise ValueError(f"resume=true: there is no run in {shown(folder)}; name one with run=NAME")


def leave_nothing(folder: Path) -> None:
    """Remove a folder in which nothing but the command was written, so that its name is free again."""
    if is_first_process() and {f.name for f in folder.iterdir()} <= {OVERRIDES}:
        (folder / OVERRIDES).unlink(missing_ok=True)
        folder.rmdir()


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


def remembered(argv: list[str]) -> list[str]:
    """For `run=NAME resume=true`, the overrides that NAME was started with, but those that are given anew."""
    given = dict(a.split("=", 1) for a in argv if "=" in a and not a.startswith("-"))
    if given.get("resume", "").lower() != "true" or "run" not in given or {"-m", "--multirun"} & set(argv):
        return []
    file = Path(given.get("paths.outputs", "outputs")) / given["run"] / OVERRIDES
    if not file.exists():
        raise ValueError(f"resume=true: there is no run in {file.parent}")
    return [o for o in yaml.safe_load(file.read_text()) if o.split("=", 1)[0].lstrip("+~") not in given]


def bare(arg: str) -> str:
    """`--key=value`, as a W&B agent writes it, is `key=value`; Hydra's own flags stay."""
    own = ("--config-", "--package=", "--info=", "--cfg=", "--shell-completion=")
    return arg[2:] if arg.startswith("--") and "=" in arg and not arg.startswith(own) else arg


def config_flags(argv: list[str]) -> list[str]:
    """Hydra's own flags that say where configs lie: a child process needs them as well."""
    flags = []
    for i, arg in enumerate(argv):
        name, equals, _ = arg.partition("=")
        if name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            flags += [arg] if equals else argv[i : i + 2]
    return flags


def shown(path: Path) -> str:
    """As short as it can be typed."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
