"""Golden runs: what a change that must move no number is compared with, bit for bit.

`MM_GOLDEN=record pytest -m slow tests/test_golden.py` records them anew, which is right only where a change is meant to
move numbers. The last bits depend on the processor and on torch: weights are compared where tests/golden holds those of
this machine's kind, and metrics everywhere.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
RUNS = {
    "default": ["trainer.max_epochs=2"],
    "sst2": ["experiment=sst2", "trainer.max_epochs=1"],
    "av_mnist_late": ["experiment=av_mnist", "model/fusion=late", "trainer.max_epochs=1"],
    "bccd_detection": ["experiment=bccd_detection", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"],
    # A few steps in float32: processors without bfloat16 take minutes for what others do in seconds.
    "digits_contrastive": [
        *("experiment=digits_contrastive", "trainer.max_epochs=1", "trainer.limit_train_batches=50"),
        "trainer.precision=32-true",
    ],
    "multi30k_translation": [
        *("experiment=multi30k_translation", "trainer.max_epochs=1", "trainer.limit_train_batches=20"),
        *("trainer.limit_val_batches=2", "trainer.limit_test_batches=2", "trainer.precision=32-true"),
    ],
}
# On another processor one epoch ends elsewhere, but not far away.
FAR = 0.15


def machine() -> str:
    """What the last bits depend on: torch, its vector instructions, and the processor, whose name says little."""
    about = Path("/proc/cpuinfo")
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    fields = dict(re.findall(r"^(model name|cpu family|model|stepping|flags)\s*: (.*)$", text, re.M))
    flags = hashlib.sha256(fields.pop("flags", "").encode()).hexdigest()[:8]
    kind = ", ".join(f"{name} {fields[name].strip()}" for name in sorted(fields))
    return f"torch {torch.__version__.split('+')[0]}, {torch.backends.cpu.get_cpu_capability()}, {kind}, flags {flags}"


def digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all names and bytes of a file of tensors."""
    found = hashlib.sha256()
    for name, x in sorted(load_file(path).items()):
        found.update(name.encode())
        found.update(x.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def measured(folder: Path) -> dict[str, float]:
    """What validation and the test measured; times and sizes of memory are left out."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name.startswith(("val", "test"))}


def train(name: str, tmp_path: Path) -> tuple[str, dict[str, float]]:
    """Run in a process of its own, in one thread: the digest of its weights, and its metrics."""
    args = [*RUNS[name], "trainer.accelerator=cpu", "datamodule.num_workers=0", "run=golden"]
    own = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "mm", "train", *args]
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs/golden"
    return digest(folder / "model/model.safetensors"), measured(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_golden_run_is_what_it_was(name, tmp_path):
    if name != "default" and "MM_DATA" not in os.environ:
        pytest.skip("needs the data sets in MM_DATA")
    weights, metrics = train(name, tmp_path)
    file = GOLDEN / f"{name}.json"
    if os.environ.get("MM_GOLDEN") == "record":
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"weights": {}}
        same = kept.get("arguments") == RUNS[name] and kept["weights"].get(machine()) == weights
        others = kept["weights"] if same else {}
        kept = {"arguments": RUNS[name], "weights": others | {machine(): weights}, "metrics": metrics}
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        return
    golden = json.loads(file.read_text(encoding="utf-8"))
    assert golden["arguments"] == RUNS[name]
    assert metrics.keys() == golden["metrics"].keys()
    if machine() in golden["weights"]:
        assert weights == golden["weights"][machine()]
        assert json.dumps(metrics) == json.dumps(golden["metrics"])  # NaN is itself here
    for key in ("test/accuracy", "test/acc", "test/loss"):
        if key in metrics:
            assert metrics[key] == pytest.approx(golden["metrics"][key], rel=FAR), key
