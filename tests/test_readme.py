"""What the README says to type, runs: the commands in their order, in one folder, on tiny settings."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import TINY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]
FILES = dict(re.findall(r"`([\w/]+\.(?:py|yaml))`[^\n]*:\n\n```\w+\n(.*?)```", README, re.S))


def tiny(args: list[str]) -> list[str]:
    """The same command, on two batches of a small model."""
    if args[1:2] != ["train"]:
        return args[1:]
    kept = [a for a in args[1:] if "max_epochs" not in a]
    if "resume=true" in args:  # what it resumes was tiny
        return [*kept, "trainer.max_epochs=2"]
    experiment = any(a.startswith("experiment=") for a in args)  # which has encoders of its own
    small = [a for a in TINY if "audio" not in a and "vision" not in a and not (experiment and "text" in a)]
    return [*kept, *small, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_test_batches=1"]


@pytest.mark.parametrize("script", [line for line in LINES if line.startswith("./")])
def test_script_is_there(script):
    path = ROOT / script
    assert path.is_file()
    assert os.access(path, os.X_OK)


def test_commands_run(mm, manifest, tmp_path, monkeypatch):
    shutil.copytree(manifest.parent, tmp_path, dirs_exist_ok=True)
    for name in ("my.csv", "test.csv", "new.csv"):
        shutil.copy(tmp_path / "rows.csv", tmp_path / name)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    ran = []
    for line in LINES:
        args = shlex.split(line)
        if args[0] == "python":
            exec(args[2], {})
        elif args[0] == "mm" and ("MM_DATA" in os.environ or "experiment=av_mnist" not in args):
            done = mm(*tiny(args))
            assert done.status == 0, f"{line}\n{done.err}"
        elif args[0] not in ("mm", "./scripts/train", "./scripts/test"):
            raise AssertionError(f"nothing runs {line}")
        ran.append(args[:2])
    verbs = {args[1] for args in ran if args[0] == "mm" and len(args) > 1}
    assert verbs == {"train", "evaluate", "predict", "calibrate", "compare", "check", "diagnose"}


def test_tree_is_true():
    listed = re.search(r"## The tree\n\n```\n(.*?)```", README, re.S)[1]
    for line in listed.splitlines():
        name = line.split()[0]
        base = ROOT / "mm" if line.startswith("  ") else ROOT
        assert (base / name).exists(), name
    rooms = {f.name for f in (ROOT / "mm").iterdir() if f.is_dir() and f.name[0] != "_" and not f.is_symlink()}
    assert rooms == {
        line.split()[0].rstrip("/") for line in listed.splitlines() if line.startswith("  ") and "/" in line.split()[0]
    }
