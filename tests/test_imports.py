"""What a command does not need is not imported: every test starts a Python of its own, and looks at its modules."""

import subprocess
import sys

import pytest

# Packages that take long to import.
HEAVY = {"torch", "lightning", "transformers", "torchvision", "torchaudio", "torchmetrics", "matplotlib", "sklearn"}
HEAVY |= {"scipy", "timm", "wandb", "faiss", "peft", "pyarrow", "numpy", "PIL", "pandas", "submitit", "seqeval"}
HEAVY |= {"sacrebleu", "pycocotools", "soundfile", "safetensors", "tokenizers"}
CONFIGS = {"hydra", "omegaconf", "antlr4"}
# What a training run imports in any case: lightning imports torchmetrics, and that the others where they are installed.
TRAINING = {"torch", "lightning", "torchmetrics", "transformers", "torchvision", "torchaudio", "matplotlib", "scipy"}
TRAINING |= {"pyarrow", "numpy", "PIL", "soundfile", "safetensors", "tokenizers"}


def imported(code: str, names: set[str]) -> set[str]:
    """Return which of some packages are imported by a program."""
    program = f"{code}\nimport sys\nprint('modules', *({{name.split('.')[0] for name in sys.modules}} & {names!r}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split()[1:])


def command(*words: str) -> str:
    """Return a program that runs a command, whose exit does not end it."""
    return (
        f"import sys; from contextlib import suppress; sys.argv = {['mm', *words]!r}\n"
        "from mm.cli import main\nwith suppress(SystemExit):\n    main()"
    )


@pytest.mark.parametrize("code", ["import mm", command(), command("--help"), command("trian")])
def test_what_needs_no_config_imports_none(code):
    assert imported(code, HEAVY | CONFIGS) == set()


@pytest.mark.parametrize("code", ["import mm.launch", "import mm.runs.compare, mm.runs.results, mm.runs.card"])
def test_jobs_and_runs_need_no_torch_and_no_config(code):
    assert imported(code, HEAVY | CONFIGS) == set()


def test_runs_are_compared_without_torch(tmp_path):
    for job in range(2):
        (tmp_path / str(job)).mkdir()
        (tmp_path / f"{job}/overrides.yaml").write_text(f"# mm train\n[seed={job}]", encoding="utf-8")
        (tmp_path / f"{job}/metrics.json").write_text('{"test/accuracy": 0.5}', encoding="utf-8")
    assert imported(command("compare", str(tmp_path)), HEAVY | CONFIGS) == set()


def test_help_imports_neither_torch_nor_what_is_built_on_it():
    assert imported(command("train", "--help"), HEAVY - {"numpy"}) == set()


def test_a_training_run_imports_only_what_its_parts_need():
    code = "import mm.assembly.fitting, mm.datamodules.manifest, mm.heads.classification, mm.fusion.transformer"
    assert imported(code, HEAVY - TRAINING) == set()
