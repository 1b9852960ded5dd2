"""Weights to begin with: taken by name and shape, and said; the values are compared with the files'."""

import pytest
import torch
from conftest import COLUMNS, TINY
from omegaconf import OmegaConf
from safetensors.torch import load_file

from mm.assembly.warm_start import count_by_part, read_init_from

STILL = ["trainer.max_epochs=1", "task.optimizer.lr=0", "task.optimizer.weight_decay=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def train(mm, manifest, run, folder, inputs, *more):
    """A run that changes no weight, of some of the inputs."""
    tiny = [o for o in TINY if not o.startswith("model.encoders.") or o.split(".")[2] in inputs]
    args = [*COLUMNS, *tiny, *STILL, f"datamodule.path={manifest}", f"paths.outputs={folder}", f"run={run}"]
    return mm("train", *args, f"datamodule.inputs=[{','.join(inputs)}]", *more)


def test_takes_what_fits_of_several_and_says_what_is_left_and_new(mm, manifest, folder):
    assert train(mm, manifest, "text", folder, ["text"], "seed=1").status == 0
    assert train(mm, manifest, "sound", folder, ["audio"], "seed=2").status == 0
    sources = f"[{folder}/text/model,{{path:{folder}/sound/model,include:'^encoders'}}]"
    both = train(mm, manifest, "both", folder, ["text", "audio"], f"model.init_from={sources}")
    assert both.status == 0, both.err
    text, sound, got = (load_file(folder / run / "model/model.safetensors") for run in ("text", "sound", "both"))
    for name, x in got.items():
        source = sound if name.startswith("encoders.audio") else text
        same = name in source and source[name].shape == x.shape and torch.equal(source[name], x)
        assert same == (name.startswith(("encoders", "projections.text", "heads")) or name in FITS), name
    assert f"of {folder}/text/model taken: encoders.text" in both.out
    assert f"of {folder}/sound/model taken: encoders.audio" in both.out
    assert "left: fusion.mlp.0.weight, of shape (16, 16), here (16, 32)" in both.out
    assert "new: projections.audio (2), fusion (1)" in both.out
    assert "init_from" not in (folder / "both/model/config.yaml").read_text()  # a model directory names no source


FITS = {"fusion.mlp.0.bias", "fusion.mlp.3.weight", "fusion.mlp.3.bias"}


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("/nowhere", "no model directory at /nowhere"),
        ("{path:MODEL,include:'^encoder[.]'}", "'^encoder[.]' matches no weight of"),
        ("[{path:MODEL,just:x}]", "model.init_from: no key 'just', wanted path and include"),
        ("[3]", "model.init_from: got 3, wanted a model directory"),
    ],
)
def test_mistakes_are_told(mm, manifest, folder, sources, said):
    if not (folder / "one").exists():
        train(mm, manifest, "one", folder, ["text"])
    told = sources.replace("MODEL", f"{folder}/one/model")
    failed = train(mm, manifest, "bad", folder, ["text"], f"model.init_from={told}")
    assert failed.status == 2
    assert said in failed.err
    assert not (folder / "bad").exists()


def test_nothing_that_fits_is_an_error(mm, manifest, folder):
    if not (folder / "one").exists():
        train(mm, manifest, "one", folder, ["text"])
    told = f"model.init_from={{path:{folder}/one/model,include:'^encoders'}}"
    failed = train(mm, manifest, "bad", folder, ["vision"], told)
    assert failed.status == 2
    assert "no weight of" in failed.err
    assert "which this model lacks" in failed.err


def test_sources_in_all_their_forms():
    def sources(given):
        cfg = OmegaConf.create({"model": {"init_from": given, "embed_dim": 3}})
        return read_init_from(cfg)

    assert sources(None) == []
    assert sources("a") == [{"path": "a", "include": [""]}]
    assert sources(["a", {"path": "b", "include": ["x", "y"]}])[1] == {"path": "b", "include": ["x", "y"]}


def test_parts_are_counted():
    found = count_by_part(["encoders.text.a.b", "encoders.text.c", "fusion.mlp.0.bias", "heads.target.linear.weight"])
    assert found == "encoders.text (2), fusion (1), heads.target (1)"
