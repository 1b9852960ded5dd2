"""Checks of a composed config before anything heavy is imported."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from mm.assembly.config_checks import check_data_files, check_no_training

MANIFEST = "mm.datamodules.manifest.ManifestDataModule"


def config(path, target=MANIFEST):
    return OmegaConf.create({"datamodule": {"_target_": target, "path": path}})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.xlsx", "c.csv.gz", "d.txt.gz"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()


@pytest.mark.parametrize("path", ["a.csv", "d.txt.gz", "folder", "", ["a.csv", {"path": "a.csv"}], None, "???"])
def test_files_that_can_be_read(files, path):
    check_data_files(config(path))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("b.xlsx", "datamodule.path: got b.xlsx, wanted a file ending in .csv, .tsv"),
        (["a.csv", {"path": "b.xlsx"}], "got b.xlsx"),
        ("none.csv", "datamodule.path: none.csv: no such file"),
        (["a.csv", "none.csv"], "datamodule.path: none.csv: no such file"),
        ("c.csv.gz", "only plain texts are read packed"),
    ],
)
def test_files_that_can_not(files, path, message):
    with pytest.raises(ValueError, match=message):
        check_data_files(config(path))


def test_other_data_modules_read_what_they_like(files):
    check_data_files(config("b.xlsx", "my_pkg.Table"))
    check_data_files(OmegaConf.create({"datamodule": {"_target_": "my_pkg.Table"}}))
    check_data_files(OmegaConf.create({"model": 1}))


@pytest.mark.parametrize("words", [["train"], ["predict", "checkpoint=m"]])
@pytest.mark.parametrize(
    ("file", "message"), [("b.xlsx", "got b.xlsx, wanted a file ending in"), ("none.csv", "none.csv: no such file")]
)
def test_a_command_refuses_a_file_before_it_imports_torch(files, tmp_path, words, file, message):
    command = ["mm", *words, "datamodule=manifest", f"datamodule.path={file}"]
    program = f"""
import sys
from mm.cli import main

sys.argv = {command}
try:
    main()
except SystemExit as end:
    print("status", end.code)
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-2:] == ["status 2", "False"], ran.stderr
    assert message in ran.stdout + ran.stderr


@pytest.mark.parametrize("key", ["resume", "baseline"])
def test_a_verb_beside_training_refuses_what_it_would_not_read(key):
    cfg = OmegaConf.create({"resume": False, "baseline": False})
    check_no_training(cfg, "benchmark")
    cfg[key] = True
    with pytest.raises(ValueError, match=f"{key}: got True, but mm benchmark does not read it"):
        check_no_training(cfg, "benchmark")
