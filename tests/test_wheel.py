"""What is installed, and a user's own folder around it."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HERE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
PROGRAM = "import sys; sys.argv[0] = 'mm'; from mm.cli import main; main()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as site-packages is after an installation of the wheel that the sdist makes."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, of the extra dev, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as sdist:
        sdist.extractall(folder / "source", filter="data")
    source = next((folder / "source").iterdir())  # the wheel is built from it, as `python -m build` does
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_installs_one_name_and_all_of_it(installed):
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"mm"}
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    for folder in ("mm", "conf", "datamodules"):
        own = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        names = {str(path.relative_to(ROOT)) for path in own if path.suffix in (".py", ".yaml")}
        assert {name if folder == "mm" else f"mm/{name}" for name in names} <= files


@pytest.mark.slow
def test_the_first_command_runs_from_an_empty_folder(installed, tmp_path):
    script = tmp_path / "bin/mm"  # as the installer writes it
    script.parent.mkdir()
    script.write_text(f"import mm\nassert mm.__file__.startswith({str(installed)!r})\n{PROGRAM}\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    env = os.environ | HERE | {"PYTHONPATH": str(installed)}
    command = [
        sys.executable,
        str(script),
        "train",
        "debug=fast",
        "trainer.accelerator=cpu",
        "datamodule.num_workers=0",
    ]
    ran = subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "empty" / ran.stdout.splitlines()[-1] / "model/model.safetensors").exists()


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A project with the names that Sphinx, Hydra and Lightning suggest; what is no `mine.py` must not be imported."""
    trap = "raise RuntimeError('of the user')\n"
    files = {"conf.py": trap, "mm.py": trap, "conf/__init__.py": trap, "conf/config.yaml": "a: 1\n"}
    files |= {"datamodules/__init__.py": "", "datamodules/digits.py": trap, "utils/__init__.py": ""}
    files |= {f"{package}/mine.py": "class Mine:\n    pass\n" for package in ("datamodules", "utils")}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def test_a_users_own_folder_hides_nothing_and_is_found(own_folder):
    code = (
        "import sys; sys.path = [p for p in sys.path if p]  # as for the installed script\n"
        "import mm.cli\nfrom mm.cli._import_path import add_working_directory\nadd_working_directory()\n"
        "from hydra.utils import get_class\n"
        "print(get_class('datamodules.mine.Mine').__module__, get_class('utils.mine.Mine').__module__)\n"
        "print(get_class('mm.datamodules.digits.DigitsDataModule').__module__)\n"
    )
    env = os.environ | HERE | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=own_folder, env=env, capture_output=True, text=True)
    assert ran.stdout.split() == ["datamodules.mine", "utils.mine", "mm.datamodules.digits"], ran.stderr


def test_every_verbs_config_is_found_from_a_users_own_folder(own_folder):
    script = Path(sys.executable).with_name("mm")
    env = os.environ | HERE | {"PYTHONPATH": str(ROOT)}
    command = [str(script), "train", "debug=fast", "--cfg", "job"]
    ran = subprocess.run(command, cwd=own_folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "mm.datamodules.digits.DigitsDataModule" in ran.stdout
