"""What stands between the command line and a job."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLUMNS, TINY

from mm import __version__
from mm.assembly.overrides import load_overrides
from mm.runs.folder import write_overrides


def test_resuming_remembers_what_is_not_given_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outputs/a").mkdir(parents=True)
    Path("outputs/a/overrides.yaml").write_text(
        "[run=a, seed=3, trainer.max_epochs=2, +x.y=1, ~callbacks.prediction_table]", encoding="utf-8"
    )
    again = ["run=a", "resume=true", "trainer.max_epochs=4", "+x.y=2", "~callbacks.prediction_table"]
    assert load_overrides(again) == ["seed=3"]
    assert load_overrides(again[:2]) == ["seed=3", "trainer.max_epochs=2", "+x.y=1", "~callbacks.prediction_table"]
    assert load_overrides([*again, "hydra.run.dir=/somewhere"]) == []  # a child process
    Path("outputs/b c,d=e").mkdir()
    Path("outputs/b c,d=e/overrides.yaml").write_text("[seed=4]", encoding="utf-8")
    assert load_overrides(["run='b c,d=e'", "resume=True"]) == ["seed=4"]
    assert load_overrides(["run=a"]) == []
    with pytest.raises(ValueError, match="there is no run in outputs/b"):
        load_overrides(["run=b", "resume=true"])


@pytest.mark.parametrize(
    ("line", "said"), [("mm ", "train"), ("mm tr", "train"), ("mm train model/fusion=ga", "model/fusion=gated")]
)
def test_completion(line, said):
    env = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    script = Path(sys.executable).with_name("mm")
    done = subprocess.run([str(script), "-sc", "query=bash"], capture_output=True, text=True, env=env)
    assert said in done.stdout.split(), done.stderr


def test_the_version_names_what_a_report_needs():
    done = subprocess.run([sys.executable, "-m", "mm", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(rf"mm {__version__} \(torch \S+, lightning \S+, transformers \S+, Python \S+\)\n", done.stdout)


def test_verbs_and_help_import_no_torch():
    code = (
        "import sys; sys.argv = ['mm']\nfrom mm.cli import main\nmain()\n"
        "print([m for m in ('torch', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")
    code = (
        "import sys; sys.argv = ['mm', 'train', '--help']\nfrom mm.cli import main\n"
        "try:\n main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "max_epochs" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_a_process_that_was_started_again_goes_on_by_itself(mm, manifest, monkeypatch):
    args = ["train", *COLUMNS, *TINY, f"datamodule.path={manifest}", "run=again", "datamodule.batch_size=16"]
    Path("outputs/again").mkdir(parents=True)
    write_overrides(Path("outputs/again"), "train", [*args[1:], "trainer.max_epochs=1"])  # it came no further
    assert "not empty" in mm(*args, "trainer.max_epochs=1").err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert "not empty" in mm(*args, "trainer.max_epochs=3").err  # another command
    first = mm(*args, "trainer.max_epochs=1")
    assert first.status == 0, first.err
    assert "no checkpoint yet, begins anew" in first.out
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert "not empty" in mm(*args, "trainer.max_epochs=2").err
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    assert "not empty" in mm(*args, "trainer.max_epochs=2").err  # another command, typed where restarts are allowed
    assert "this run is finished" in mm(*args, "trainer.max_epochs=1").out
    monkeypatch.setenv("MM_RESTART_COUNT", "1")  # a pool's job may be given more epochs
    second = mm(*args, "trainer.max_epochs=2")
    assert second.status == 0, second.err
    assert "goes on in outputs/again" in second.out
    assert second.metrics["train/epochs"] == 2
    assert second.metrics["train/steps"] == 2 * 3
    third = mm(*args, "trainer.max_epochs=2")
    assert "this run is finished" in third.out


def test_processes_side_by_side_need_a_name(mm, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    ran = mm("train", "trainer.accelerator=cpu")
    assert ran.status == 2
    assert "run=NAME is needed where 4 processes are started side by side" in ran.err


def test_torchrun_must_not_share_its_store_where_it_restarts(mm, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    ran = mm("train", "trainer.accelerator=cpu", "run=elastic")
    assert ran.status == 2
    assert "type TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone" in ran.err


def test_a_run_remembers_its_verb(mm, manifest):
    ran = mm("train", *COLUMNS, *TINY, f"datamodule.path={manifest}", "run=a", "debug=fast")
    assert (ran.folder / "overrides.yaml").read_text().startswith("# mm train\n- datamodule=manifest\n")
