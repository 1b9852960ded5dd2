"""The one door: a directory of plain files that loads anywhere, and never runs what it should not."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import COLUMNS, TINY
from safetensors.torch import save_file

import mm
from mm.checkpoint import build, build_metrics, fetch, find_class, load, weights
from mm.checkpoint.classes import METRICS
from mm.checkpoint.upgrade import FORMAT


@pytest.fixture(scope="module")
def trained(mm_once, tmp_path_factory, manifest):
    """A model directory, made once."""
    folder = tmp_path_factory.mktemp("trained")
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", f"paths.outputs={folder}", "run=r", "trainer.max_epochs=1"]
    mm_once(folder, "train", *args)
    return folder / "r/model"


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "moved/elsewhere")


def change(folder, edit):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    edit(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def test_predicts_from_any_subset_of_raw_inputs(copy, manifest):
    model = mm.load(copy)
    sample = {
        "text": "it is red",
        "vision": str(manifest.parent / "media/0.png"),
        "audio": str(manifest.parent / "media/0.wav"),
    }
    whole = model.predict(sample)["target"]
    assert whole["prediction"] in ("blue", "green", "red")
    assert sum(whole["probability"].values()) == pytest.approx(1)
    alone = model.predict(
        [{"text": "it is red"}, sample, {"vision": torch.rand(3, 12, 12)}, {"audio": (torch.zeros(4410), 44100)}]
    )
    assert alone[1]["target"]["probability"] == pytest.approx(whole["probability"], abs=1e-5)
    assert alone[0]["target"]["probability"] != pytest.approx(whole["probability"], abs=1e-3)


def test_it_is_printed_in_four_lines(copy):
    first, inputs, targets, size = repr(load(copy)).splitlines()
    assert first == f"TrainedModel('{copy}')"
    assert inputs == "  inputs:  text (text), vision (vision), audio (audio)"
    assert targets == "  targets: target (blue, green, red)"
    assert re.fullmatch(r"  size:    [\d,]+ weights \(cpu, float32\)", size)


def test_mistakes_are_named(copy):
    model = mm.load(copy)
    assert model.predict([]) == []
    with pytest.raises(ValueError, match="no input 'txt'; this model reads text, vision, audio; did you mean 'text'"):
        model.predict({"txt": "seven"})
    with pytest.raises(ValueError, match="no input 'words'; .*; the column 'words' is its 'text'"):
        model.predict({"words": "seven"})
    with pytest.raises(ValueError, match="sample 0 has no input"):  # an empty cell is absent
        model.predict({"text": ""})
    with pytest.raises(ValueError, match="sample 1 has no input"):
        model.predict([{"text": "seven"}, {"text": None}])
    with pytest.raises(ValueError, match="sample 1, 'vision': can't read the image nowhere.png"):
        model.predict([{"text": "seven"}, {"vision": "nowhere.png"}])
    for wrong in ("seven", ["seven"]):
        with pytest.raises(ValueError, match=r"got .*seven.*, wanted a sample, such as \{'text': ...\}, or a list"):
            model.predict(wrong)
    with pytest.raises(ValueError, match="has no config.yaml"):
        mm.load(copy / "nothing")


def test_a_list_is_predicted_in_batches(copy, monkeypatch):
    model = mm.load(copy)
    samples = [{"text": "it is " + "red" * (i % 4 + 1)} for i in range(7)]
    whole = model.predict(samples, batch_size=7)
    sizes, forward = [], type(model.model).forward

    def counted(self, inputs, masks, targets=None):
        sizes.append(len(masks["text"]))
        return forward(self, inputs, masks, targets)

    monkeypatch.setattr(type(model.model), "forward", counted)
    for batch_size, wanted in ((3, [3, 3, 1]), (1, [1] * 7)):
        found = model.predict(samples, batch_size=batch_size)
        assert sizes == wanted
        sizes.clear()
        for one, other in zip(found, whole, strict=True):
            assert one["target"]["probability"] == pytest.approx(other["target"]["probability"], abs=1e-6)
    assert len(model.predict(samples * 10)) == 70
    assert max(sizes) == 32  # the default
    with pytest.raises(ValueError, match=r"^sample 5 has no input"):
        model.predict([*samples[:5], {}], batch_size=2)
    with pytest.raises(ValueError, match=r"^sample 6, 'vision': can't read the image nowhere.png"):
        model.predict([*samples[:6], {"vision": "nowhere.png"}], batch_size=4)
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="batch_size: got"):
            model.predict(samples, batch_size=wrong)


def test_directory_is_plain_and_names_no_folder_it_was_made_from(copy, manifest):
    names = {f.name for f in copy.iterdir()}
    assert names == {"config.yaml", "model.safetensors", "labels.json", "README.md", "rows.safetensors"}
    config = (copy / "config.yaml").read_text()
    assert str(manifest.parent) not in config
    assert "???" not in config
    assert json.loads((copy / "labels.json").read_text()) == {"target": ["blue", "green", "red"]}


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "builtins.eval",
        "mm.checkpoint.load",
        "mm.checkpoint.Path",
        "mm.__main__.main",
        "torch.nn.init.zeros_",
    ],
)
def test_config_builds_classes_of_allowed_packages_only(copy, target, tmp_path):
    change(copy, lambda c: c["transforms"].update(text={"_target_": target, "f": "x"}))
    with pytest.raises(ValueError, match="names " + target.replace(".", r"\.")):
        mm.load(copy)


def test_allow_admits_a_package(copy, tmp_path, monkeypatch):
    (tmp_path / "their_pkg.py").write_text(
        "from mm.transforms.text.tokens import TextTransform\nclass Mine(TextTransform): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    change(copy, lambda c: c["transforms"]["text"].update(_target_="their_pkg.Mine"))
    with pytest.raises(ValueError, match=r"mm.load\(path, allow=\['their_pkg'\]\)"):
        mm.load(copy)
    assert type(mm.load(copy, allow=["their_pkg"]).transforms["text"]).__name__ == "Mine"


def test_other_weights_and_missing_packages_are_refused(copy, monkeypatch):
    monkeypatch.setattr("mm.checkpoint.loading.OPTIONAL", ("torchaudio", "no_such_package"))
    change(copy, lambda c: c["requires"].update(no_such_package="1"))
    with pytest.raises(ValueError, match="needs no_such_package"):
        mm.load(copy)
    change(copy, lambda c: c["requires"].pop("no_such_package"))
    change(copy, lambda c: c["model"]["encoders"]["text"].update(pretrained="someone/else"))
    with pytest.raises(ValueError, match="model\\.encoders\\.text\\.pretrained names other weights, 'someone/else'"):
        mm.load(copy)


def test_what_it_requires_is_told(copy):
    requires = yaml.safe_load((copy / "config.yaml").read_text())["requires"]
    assert list(requires) == ["mm", "torch", "torchaudio"]


def test_what_is_known_of_its_confidence_comes_with_it(copy):
    sample = {"text": "it is red"}
    before = mm.load(copy).predict(sample)["target"]
    change(copy, lambda c: c.pop("split"))  # directories of before there was either
    assert mm.load(copy).predict(sample)["target"] == before
    known = {"temperature": 4.0, "quantiles": [0.7], "alpha": 0.1}
    change(copy, lambda c: c.update(calibration={"target": known}))
    after = mm.load(copy).predict(sample)["target"]
    weight = {name: p**0.25 for name, p in before["probability"].items()}
    told = {name: w / sum(weight.values()) for name, w in weight.items()}
    assert after["probability"] == pytest.approx(told, abs=1e-5)
    assert after["prediction"] == before["prediction"]
    assert set(after["prediction_set"]) == {
        name for name, p in told.items() if 1 - p <= 0.7 or name == before["prediction"]
    }
    change(copy, lambda c: c["calibration"]["target"].update(quantiles=[], alpha=None))
    assert "prediction_set" not in mm.load(copy).predict(sample)["target"]


def test_an_unknown_format_is_refused(copy):
    change(copy, lambda c: c.update(format=99))
    for door in (mm.load, weights):  # weights that training begins with, as well
        with pytest.raises(ValueError, match="got format 99, this mm reads 4"):
            door(copy)


def test_loading_imports_neither_lightning_nor_torchmetrics_nor_hydra(trained):
    code = (
        f"import sys, mm; m = mm.load({str(trained)!r}); m.predict({{'text': 'red'}}); "
        "print([n for n in ('lightning', 'torchmetrics', 'hydra', 'transformers', 'wandb') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_build_is_plain_recursion():
    layer = build({"a": [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}]})["a"][0]
    assert isinstance(layer, torch.nn.Linear)
    assert (layer.in_features, layer.out_features) == (2, 3)


def test_wandb_artifacts_are_fetched(copy, monkeypatch):
    import wandb

    asked = []

    entries = {"config.yaml": SimpleNamespace(ref=None)}

    class Api:
        manifest = SimpleNamespace(entries=entries)

        def artifact(self, name):
            asked.append(name)
            return self

        def download(self):
            return str(copy)

    monkeypatch.setattr(wandb, "Api", Api)
    assert fetch("wandb:team/project/model:v3") == copy
    assert asked == ["team/project/model:v3"]
    assert mm.load("wandb:team/project/model:v3").predict({"text": "red"})
    for name, ref in (("../../x", None), ("/etc/x", None), ("x", "file:///etc/passwd")):
        entries.clear()
        entries[name] = SimpleNamespace(ref=ref)
        with pytest.raises(ValueError, match="which lies outside of it"):
            fetch("wandb:team/project/model:v3")


@pytest.fixture
def directory(tmp_path):
    """A config as a model directory has it, before anything of it is built."""
    (tmp_path / "model").mkdir()
    save_file({}, tmp_path / "model/model.safetensors")
    config = {"format": FORMAT, "requires": {"mm": "0"}, "transforms": {}, "target_codecs": {}, "spec": {}, "model": {}}

    def write(**changed):
        text = yaml.safe_dump(config | changed)
        (tmp_path / "model/config.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "model"

    return write


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"requires": {"evil.x": "1"}}, "requires: got .*wanted versions of some of mm, torch, timm"),
        ({"requires": ["evil"]}, "requires: got"),
        ({"model": {"fusion": {"_target_": "os.system", "command": "x"}}}, "names os.system, which is outside"),
        ({"model": {"fusion": {"_target_": "mm.launch.local.LocalPool"}}}, "which is outside"),
        (
            {
                "spec": {"inputs": {}, "targets": {}},
                "model": {
                    "encoders": {},
                    "heads": {},
                    "_target_": "torch.nn.init.zeros_",
                    "fusion": {"_target_": "torch.nn.Identity"},
                },
            },
            "no class|is damaged",
        ),
        ({"model": {"heads": {"a": {"pretrained": "gpt2"}}}}, r"model\.heads\.a\.pretrained names other weights"),
        ({"model": {"fusion": {"towers": [{"pretrained": "x"}]}}}, r"model\.fusion\.towers\.0\.pretrained names"),
        ({"transforms": {"text": {"tokenizer": "gpt2"}}}, r"transforms\.text\.tokenizer: got 'gpt2', wanted a folder"),
        ({"transforms": {"text": {"tokenizer": "../other"}}}, r"tokenizer: got '\.\./other'"),
        ({"format": 99}, "got format 99"),
        ({"model": 3}, "model: got 3, wanted a mapping"),
        ({"spec": {"inputs": 4}}, "spec.inputs: got 4, wanted a mapping"),
        ({"columns": {"audio": {"_target_": "pathlib.Path.touch"}}}, "columns.audio names a class"),
        ({"task": {"label": {"_target_": "evil.run"}}}, "outside"),
        ({"task": {"label": ["a"]}}, "task.label: got .*wanted a name"),
        ({"task": {"scale": {"_target_": "mm.layers.Pool"}}}, "task.scale names a class"),
        ({"split": {"val": {"_target_": "evil.run"}}}, "split.val names a class"),
        ({"transforms": {"/etc": {"_target_": "torch.nn.Identity"}}}, "got the name '/etc', wanted a plain word"),
        ({"metrics": {"target": {"../x": {"_target_": "torchmetrics.MeanMetric"}}}}, r"got the name '\.\./x'"),
        (
            {"model": {"encoders": {"a": {"config": {"attn_implementation": "org/kernel"}}}}},
            "outside of this directory",
        ),
        ({"model": {"encoders": {"a": {"config": {"use_pretrained_backbone": True}}}}}, "names other weights, True"),
        (
            {"spec": {"targets": {"a": {"facts": {"tokenizer": "gpt2"}}}}},
            r"spec\.targets\.a\.facts\.tokenizer: got 'gpt2'",
        ),
    ],
)
def test_a_strangers_directory_runs_nothing_and_ends_in_one_message(directory, tmp_path, monkeypatch, changed, message):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = directory(**changed)
    (path / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        load(path)
    assert "evil" not in sys.modules


def test_metrics_of_a_stranger_load_no_models():
    rate = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 2}
    assert list(build_metrics({"accuracy": rate})) == ["accuracy"]
    for target in ("torchmetrics.text.BERTScore", "torchmetrics.text.bert.BERTScore", "torchmetrics.text.ROUGEScore"):
        with pytest.raises(
            ValueError, match=r"the metric 'a' is .*which may load another model.*allow=\[torchmetrics\]"
        ):
            build_metrics({"a": {"_target_": target}})
    with pytest.raises(ValueError, match="no class of an allowed package"):  # what an allowed module has imported
        build({"_target_": "torch.nn.modules.module.OrderedDict"})


def test_the_metrics_of_our_heads_are_those_of_a_stranger_too():
    for file in (Path(__file__).parents[1] / "conf/model/heads").glob("*.yaml"):
        for found in re.findall(r"_target_: (torchmetrics\.\S+)", file.read_text(encoding="utf-8")):
            assert find_class(found, ["torchmetrics"]).__module__.removeprefix("torchmetrics.").startswith(METRICS)


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x", "[1", "\x00", "- a", "5", ""])
def test_a_config_that_is_none_ends_in_one_message(directory, text):
    path = directory()
    (path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: is"):
        load(path)
