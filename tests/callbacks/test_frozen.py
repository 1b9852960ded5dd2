"""Training on stored Features is training on the frozen encoders themselves."""

import json

import pytest
import torch
from conftest import COLUMNS, TINY, write_manifest
from safetensors.torch import load_file

from mm.callbacks.frozen import StoredFeatures, Writer
from mm.types import Features

ARGS = [
    *COLUMNS,
    *TINY,
    "model/fusion=transformer",
    "model.fusion.layers=1",
    "trainer.max_epochs=2",
    "model.fusion.heads=2",
]
FROZEN = ["task.freeze=['^encoders\\.(text|audio)']", "task.modality_dropout=0.3", "datamodule.batch_size=8"]
AS_MISSING = ["datamodule.on_error=missing", "datamodule.transforms.text.max_length=10"]


@pytest.fixture
def broken(tmp_path):
    """One sound is unreadable, one cell empty."""
    path = write_manifest(tmp_path / "data", sound=lambda row, line: line.update(words="") if row == 4 else None)
    (path.parent / "media/1.wav").write_bytes(b"no sound")
    return path


@pytest.mark.parametrize("how", [[], ["datamodule.transforms.text.too_long=window"]])
def test_equals_computing_each_time(mm, broken, tmp_path, how):
    args = [*ARGS, *FROZEN, *AS_MISSING, *how, f"datamodule.path={broken}", f"paths.cache={tmp_path / 'cache'}"]
    runs = {}
    for name, more in {"plain": ["cache_features=false"], "first": [], "second": []}.items():
        runs[name] = mm("train", *args, *more, f"run={name}")
        assert runs[name].status == 0, runs[name].err
    assert "features of" not in runs["plain"].out
    for name in ("text", "audio"):
        assert f"features of '{name}', whose encoder is frozen: kept in" in runs["first"].out
        assert f"features of '{name}', whose encoder is frozen: read from" in runs["second"].out
    assert "features of 'vision'" not in runs["first"].out
    weights = {name: load_file(run.folder / "model/model.safetensors") for name, run in runs.items()}
    for name in ("first", "second"):
        for part, x in weights["plain"].items():
            torch.testing.assert_close(weights[name][part], x, rtol=1e-4, atol=1e-5)
        for metric, x in runs["plain"].metrics.items():
            if "seconds" not in metric:
                assert runs[name].metrics[metric] == pytest.approx(x, abs=1e-4), metric
        assert (runs[name].folder / "errors.csv").read_text() == (runs["plain"].folder / "errors.csv").read_text()


def test_another_key_for_other_weights_data_and_reading(mm, manifest, tmp_path):
    args = [
        *ARGS,
        *FROZEN,
        f"paths.cache={tmp_path / 'cache'}",
        "trainer.max_epochs=1",
    ]
    args[args.index(FROZEN[0])] = "task.freeze=['^encoders\\.text']"
    other = write_manifest(tmp_path / "data", words=lambda row, line: line.update(words=line["words"] + "?"))
    keys = []
    for i, more in enumerate(
        ([], ["seed=1"], ["datamodule.transforms.text.max_length=5"], [f"datamodule.path={other}"])
    ):
        run = mm("train", *args, f"datamodule.path={manifest}", *more, f"run=r{i}")
        assert run.status == 0, run.err
        keys.append(next(line for line in run.out.splitlines() if line.startswith("features of 'text'")))
    assert len(set(keys)) == 4
    assert all("kept in" in key for key in keys)


def test_augmented_inputs_and_learning_encoders_are_left_alone(mm, manifest, tmp_path):
    args = [*ARGS, f"datamodule.path={manifest}", "trainer.max_epochs=1", f"paths.cache={tmp_path / 'cache'}"]
    run = mm("train", *args, "datamodule/transforms/vision=shift", "task.freeze=['^encoders\\.vision']", "run=a")
    assert run.status == 0, run.err
    assert "features of" not in run.out


def test_what_is_written_is_read(tmp_path):
    generator = torch.Generator().manual_seed(0)
    features = Features(
        torch.randn(3, 5, 4, generator=generator).bfloat16(),
        torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool(),
        torch.randn(3, 4, generator=generator),
        torch.rand(3, 5, 2, generator=generator),
    )
    abouts = []
    for rank, (rows, part) in enumerate([([7, 8, 2], features), ([5, 5, -1], features)]):
        writer = Writer(tmp_path, rank)
        assert writer.add(torch.tensor(rows), part) > 0
        abouts.append(writer.close() | {"faults": [], "cut": []})
    abouts[1]["faults"] = [[9, "can't read it"]]
    (tmp_path / "done.json").write_text(json.dumps(abouts))
    stored = StoredFeatures(tmp_path)
    (seven,) = stored(7).windows
    assert torch.equal(seven.tokens, features.tokens[0, :4])
    assert seven.tokens.dtype == torch.bfloat16
    assert seven.mask.tolist() == [True, True, False, True]
    assert torch.equal(seven.position, features.position[0, :4])
    assert stored(8).windows == []
    assert torch.equal(stored(2).windows[0].pooled, features.pooled[2])
    assert len(stored(5).windows) == 1
    with pytest.raises(ValueError, match="can't read it"):
        stored(9)
    assert stored.lengths([7, 8, 2, 0]) == [4, 0, 5, 0]
