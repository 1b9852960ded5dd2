"""Whoever reads the output may go away: the command goes on."""

import os
import subprocess
import sys

from conftest import ROOT

PRINTS = """
import sys
from pathlib import Path
from mm.output import lasting_output
with lasting_output("nobody reads"):
    for line in range(100_000):
        print(line)
    print("told", file=sys.stderr)
Path("done").touch()
"""


def run(code: str, folder, pipe: str) -> subprocess.CompletedProcess:
    """A program of Python code in a pipe of a shell; its status is the shell's."""
    command = f'"$PY" -c "$CODE" {pipe}; exit ${{PIPESTATUS[0]}}'
    own = os.environ | {"PYTHONPATH": str(ROOT), "PY": sys.executable, "CODE": code}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=own, capture_output=True, text=True)


def test_a_program_outlives_the_reader_of_its_output(tmp_path):
    ran = run(PRINTS, tmp_path, "| head -1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "0\n"
    assert ran.stderr.splitlines() == ["nobody reads", "told"]
    assert (tmp_path / "done").exists()


def test_a_program_outlives_the_reader_of_its_errors(tmp_path):
    ran = run(PRINTS, tmp_path, "2>&1 | head -1")
    assert ran.returncode == 0
    assert ran.stdout == "0\n"
    assert (tmp_path / "done").exists()


def test_a_program_without_standard_output(tmp_path):
    assert run(PRINTS, tmp_path, ">&-").returncode == 0
    assert (tmp_path / "done").exists()


def test_help_into_head_ends_well(tmp_path):
    ran = run("from mm.cli import main; main()", tmp_path, "--help | head -1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("mm VERB")


def test_another_broken_pipe_is_an_error(tmp_path):
    code = "import os\nfrom mm.output import lasting_output\na, b = os.pipe()\nos.close(a)\n"
    ran = run(f"{code}with lasting_output(''):\n    os.write(b, b'x')", tmp_path, "")
    assert ran.returncode == 1
    assert "BrokenPipeError" in ran.stderr
