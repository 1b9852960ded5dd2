"""Other machines than ours: ASCII locales, closed standard streams, no HOME, narrow screens."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ["grün", "日本", "naïve 🙂"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["größe", "label"])
        writer.writerows([f"text about {NAMES[row % 3]} {row}", NAMES[row % 3]] for row in range(60))
    return path


TRAIN = ["train", "datamodule=manifest", "datamodule.path=rows.csv", "datamodule.columns.text=größe"]
TRAIN += [
    "datamodule.columns.target=label",
    "datamodule.num_workers=0",
    "model/encoders/text=hashed_ngrams",
    "debug=fast",
]
TRAIN += ["trainer.accelerator=cpu", "run=a"]


def shell(line: str, cwd: Path, without: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess:
    """Run a line of bash, in which $MM is the program."""
    settings = {"MM": f"{sys.executable} -m mm", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    given = {name: value for name, value in os.environ.items() if name not in without} | settings | env
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=given, capture_output=True)


def quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" for word in words)


@pytest.mark.slow
def test_an_ascii_locale_changes_no_letter(table, tmp_path):
    ran = shell(f"$MM {quoted(TRAIN)}", tmp_path, **ASCII)
    assert ran.returncode == 0, ran.stderr.decode()
    folder = tmp_path / "outputs/a"
    assert json.loads((folder / "model/labels.json").read_text(encoding="utf-8")) == {"target": sorted(NAMES)}
    assert f"test/support/{NAMES[1]}" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    again = shell("$MM compare outputs && $MM diagnose run=a", tmp_path, **ASCII)
    assert again.returncode == 0, again.stderr.decode()
    new = shell("$MM predict checkpoint=outputs/a/model datamodule.path=rows.csv run=b", tmp_path, **ASCII)
    assert new.returncode == 0, new.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "without", "env"),
    [
        ("$MM {} <&- >&-", (), {}),
        ("$MM {} <&- 2>&-", (), {}),
        ("$MM {} </dev/null >&- 2>&-", (), {}),
        ("$MM {} | cat", ("HOME", "USER", "LOGNAME", "TERM"), {"NO_COLOR": "1", "COLUMNS": "40"}),
    ],
)
def test_a_run_ends_well_on_any_terminal(table, tmp_path, line, without, env):
    ran = shell("set -o pipefail; " + line.format(quoted(TRAIN)), tmp_path, without, **env)
    assert ran.returncode == 0, ran.stderr.decode()
    assert (tmp_path / "outputs/a/metrics.json").exists()
    assert (tmp_path / "outputs/a/model/model.safetensors").exists()
    assert not re.search(rb"\x1b\[[0-9;]*m", ran.stdout)  # no colours
    if "NO_COLOR" in env:
        table_lines = [part for part in ran.stdout.decode().splitlines() if "accuracy" in part]
        assert table_lines  # nothing of the metrics' names is lost on a narrow screen
    given = b"".join((tmp_path / "outputs/a" / name).read_bytes() for name in ("config.yaml", "overrides.yaml"))
    assert b"Epoch" not in given  # what is printed to a closed stream lands in no file


def test_a_mistake_is_one_message_in_an_ascii_locale(tmp_path):
    ran = shell("$MM compare 'Straße'", tmp_path, **ASCII)
    assert ran.returncode == 2
    assert ran.stderr.decode().startswith("mm: ")
    assert ran.stderr.count(b"\n") == 1


def test_closed_streams_take_no_numbers_of_files(tmp_path):
    code = (
        "from mm.streams import settle\nsettle()\nprint('lost')\n"
        "import sys; print('lost', file=sys.stderr); assert sys.stdin.read() == ''\n"
        "file = open('a', 'w', encoding='utf-8'); assert file.fileno() > 2, file.fileno(); file.write('kept')"
    )
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"):
        ran = shell(f"{sys.executable} code.py </dev/null {closed}", tmp_path)
        assert ran.returncode == 0, ran.stderr.decode()
        assert (tmp_path / "a").read_text(encoding="utf-8") == "kept"


def test_what_a_stream_cannot_show_is_escaped(tmp_path):
    code = "from mm.streams import settle; settle(); print('gr\\u00fcn \\udcff')"
    for env, said in ((ASCII, rb"gr\xfcn \udcff"), ({"PYTHONUTF8": "1"}, "grün \\udcff".encode())):
        ran = shell(f'{sys.executable} -c "{code}"', tmp_path, **env)
        assert ran.stdout.strip() == said, ran.stderr.decode()


def test_a_program_that_calls_mm_is_not_started_again(tmp_path):
    code = (
        "import os, sys; before = os.getpid(), sys.argv; from mm.cli import main; sys.argv = ['mm', '--help']; main()"
    )
    ran = shell(f'{sys.executable} -c "{code}; print(sys.flags.utf8_mode)"', tmp_path, **ASCII)
    assert ran.stdout.decode().strip().endswith("0"), ran.stderr.decode()


@pytest.mark.parametrize("program", ["$MM", f"{Path(sys.executable).with_name('mm')}"])
def test_names_of_files_beyond_ascii(tmp_path, program):
    (tmp_path / "größe").mkdir()
    ran = shell(f"{program} compare größe", tmp_path, **ASCII)
    assert ran.returncode == 2
    assert ran.stderr == b"mm: gr\\xf6\\xdfe: no run below it has a metrics.json yet\n"
