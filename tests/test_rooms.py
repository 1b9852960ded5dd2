"""Who may know whom, as design has it: no room imports a sibling, and only cli and assembly touch Hydra."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = {"encoders", "fusion", "heads"}
SIDE = {"losses", "metrics", "transforms", "model", "tasks", "callbacks", "peft", "merging", "knowledge", "compression"}
SIDE |= {"export", "explain", "cleaning", "monitoring", "contracts", "layers"}
APPLYING = {"calibration", "evaluation", "retrieval"}
MAY = {
    "types": set(),
    "messages": set(),
    "renames": set(),
    "tensors": {"types"},
    "protocols": set(),
    "data_source": {"types"},
    "extras": set(),
    "_compat": set(),
    "files": set(),
    "lazy": set(),
    "reports": {"files"},
    "quiet": set(),
    "configurable": set(),
    "pretrained": set(),
    "predictions": {"types"},
    "runs": set(),
    "arrow": set(),
    "launch": {"runs"},  # whether a job is finished is read in its run folder
    "signals": set(),
    "output": set(),
    "streams": set(),
    "text_column": set(),
    "windows": {"types"},
    "absence": {"types"},
    "fingerprints": {"types"},
    "cells": set(),
    "tokenizers": set(),
    "targets": {"types"},
    "batching": {"types"},
    "modalities": {"types", "transforms", "targets"},  # which it imports when it is asked for one
    **{room: {"types", "layers"} for room in BUILT},
    "heads": {"types", "layers", "metrics"},  # numbers in the widest float that a device has
    **{room: {"types"} for room in SIDE},
    "tasks": {"types", "model"},  # the centre, which they are handed built
    "features": {"types"},  # Features of frozen encoders
    "contracts": {"types", "targets"},  # a target is of classes where nothing else is asked for
    "annotations": set(),
    "untrusted": {"types", "annotations"},
    "checkpoint": {"types", "transforms", "model", "untrusted"},
    "data": {"types", "transforms", "targets", "annotations"},
    "datamodules": {"types", "transforms", "targets", "annotations", "data"},
    "applying": {"types", "checkpoint"},
    "baselines": {"types", "metrics", "targets"},  # the rows of a DataSource, whatever its kind
    **{room: {"types", "model", "checkpoint", "metrics", "transforms", "applying"} for room in APPLYING},
    "profiling": {"types", "tasks", "callbacks"},  # it times and starts trainings
    # Its measures are those of the tasks; robustness keeps the features of inputs that nothing happens to.
    "evaluation": {*["types", "model", "checkpoint", "metrics", "transforms", "applying", "tasks", "features"]},
    "serving": {"types", "transforms", "checkpoint"},
}
# Open to every room.
GROUND = {
    "absence",
    "batching",
    "cells",
    "arrow",
    "configurable",
    "_compat",
    "extras",
    "files",
    "fingerprints",
    "lazy",
    "messages",
    "modalities",
    "predictions",
    "pretrained",
    "quiet",
    "renames",
    "tensors",
    "protocols",
    "data_source",
    "reports",
    "signals",
    "text_column",
    "tokenizers",
    "windows",
}
ANYTHING = {"cli", "assembly", "__init__", "__main__"}  # `mm/__init__.py` re-exports load
FILES = sorted([*ROOT.glob("mm/**/*.py"), *ROOT.glob("datamodules/**/*.py")])


def imported(file: Path) -> set[str]:
    """Dotted names of every import, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_room_knows_only_whom_it_may(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    room = parts[0] if parts[0] == "datamodules" else parts[1]
    names = imported(file)
    if room in {"runs", "launch"}:
        assert not {n for n in names if n.split(".")[0] in {"torch", "lightning"}}
    if room not in {"cli", "assembly", "_compat"}:
        assert not {n for n in names if n.split(".")[0] in {"hydra", "omegaconf"}}
    if room not in ANYTHING:
        ours = {n.split(".")[1] for n in names if n.startswith("mm.")}
        assert ours <= MAY[room] | GROUND | {room}, f"{room} may know {sorted(MAY[room])}"
    assert room in {"cli", "__main__"} or not {n for n in names if n.startswith("mm.cli")}


@pytest.mark.parametrize(
    "file", [file for file in FILES if "cli" not in file.parts], ids=lambda f: str(f.relative_to(ROOT))
)
def test_only_the_command_line_prints(file):
    """Other rooms log to the logger "mm" or return values."""
    calls = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert not {n for n in imported(file) if n.split(".")[0] == "rich"}


CLI = sorted(ROOT.glob("mm/cli/*.py"))
# Lines of mm/cli: the target is 1,500. The verb baseline has 30, and the notes above the commands of mm train 8.
CLI_LINES = 1569


def line_count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("file", [file for file in CLI if not file.name.startswith("_")], ids=lambda f: f.stem)
def test_a_verb_only_parses_calls_and_renders(file):
    assert line_count(file) <= 60


def test_the_command_line_holds_nothing_that_python_lacks():
    assert sum(map(line_count, CLI)) <= CLI_LINES


# Lines of a file without its docstrings; those of the central files have a limit of their own.
FILE_LINES = 330
CORE_LINES = {"mm/model.py": 104, "mm/types.py": 201}


def code_line_count(file: Path) -> int:
    """Count the lines of a file outside of docstrings."""
    source = file.read_text(encoding="utf-8")
    count = len(source.splitlines())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            count -= (text.end_lineno or text.lineno) - text.lineno + 1
    return count


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_holds_one_capability(file):
    name = file.relative_to(ROOT).as_posix()
    assert code_line_count(file) <= CORE_LINES.get(name, FILE_LINES)
