"""What stands between the command line and a job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm.cli._app import bare, config_flags, remembered


def test_a_wandb_agents_arguments_are_taken_as_they_are():
    assert bare("--task.optimizer.lr=0.1") == "task.optimizer.lr=0.1"
    assert [bare(a) for a in ("-m", "--multirun", "--config-dir=x", "seed=1")] == [
        "-m",
        "--multirun",
        "--config-dir=x",
        "seed=1",
    ]


def test_a_child_process_gets_the_flags_that_say_where_configs_lie():
    assert config_flags(["-m", "--config-dir", "here", "seed=1", "-cn=train"]) == ["--config-dir", "here", "-cn=train"]


def test_resuming_remembers_what_is_not_given_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outputs/a").mkdir(parents=True)
    Path("outputs/a/overrides.yaml").write_text("[run=a, seed=3, trainer.max_epochs=2, +x.y=1, ~callbacks.samples]")
    again = ["run=a", "resume=true", "trainer.max_epochs=4", "+x.y=2", "~callbacks.samples"]
    assert remembered(again) == ["seed=3"]
    assert remembered(again[:2]) == ["seed=3", "trainer.max_epochs=2", "+x.y=1", "~callbacks.samples"]
    assert remembered([*again, "hydra.run.dir=/somewhere"]) == []  # a child process
    Path("outputs/b c,d=e").mkdir()
    Path("outputs/b c,d=e/overrides.yaml").write_text("[seed=4]")
    assert remembered(["run='b c,d=e'", "resume=True"]) == ["seed=4"]
    assert remembered(["run=a"]) == []
    with pytest.raises(ValueError, match="there is no run in outputs/b"):
        remembered(["run=b", "resume=true"])


@pytest.mark.parametrize(
    ("line", "said"), [("mm ", "train"), ("mm tr", "train"), ("mm train model/fusion=ga", "model/fusion=gated")]
)
def test_completion(line, said):
    env = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    script = Path(sys.executable).with_name("mm")
    done = subprocess.run([str(script), "-sc", "query=bash"], capture_output=True, text=True, env=env)
    assert said in done.stdout.split(), done.stderr


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
