"""A model directory that is damaged, or of a stranger, loads or ends in one ValueError, and runs nothing."""

import copy
import json
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mm
from mm import checkpoint
from mm.types import DataSpec, InputData, TargetData

ROUNDS = 1000
CLASSES = ["no", "yes"]
MODEL = {
    "_target_": "mm.model.MultimodalModel",
    "encoders": {
        "text": {
            "_target_": "mm.encoders.text.hashed_ngrams.TextHashedNgrams",
            "embed_dim": 8,
            "ngram": 2,
            "num_hash_buckets": 64,
            "dropout": 0.0,
            "max_length": 32,
            "pool": "mean",
        }
    },
    "fusion": {"_target_": "mm.fusion.sum.SumFusion", "inputs": ["text"]},
    "heads": {
        "label": {
            "_target_": "mm.heads.classification.ClassificationHead",
            "classes": CLASSES,
            "embed_dim": 8,
            "counts": [3, 4],
        }
    },
    "embed_dim": 8,
}
TRANSFORMS = {"text": {"_target_": "mm.transforms.text.tokens.TextTransform", "tokenizer": "bytes", "max_length": 32}}
READERS = {"label": {"_target_": "mm.targets.classes.ClassTarget"}}
METRICS = {"label": {"accuracy": {"_target_": "torchmetrics.Accuracy", "task": "multiclass", "num_classes": 2}}}
NUMBERS = [-1, 0, 1, 3, 10**5, 10**6, 10**7, 10**8, 10**9, 10**12, 10**18, 10**40, 0.5, float("nan"), float("inf")]
TARGETS = [
    "os.system",
    "subprocess.Popen",
    "evil.Evil",
    "evil",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.nn.init.zeros_",
    "torch.nn.Module",
    "torch.nn.Linear",
    "torch.nn.Transformer",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.functional.torch.hub.load",
    "mm.cli.train.main",
    "mm.checkpoint.load",
    "mm.encoders.text.hashed_ngrams.hashed_ngrams",
    "mm.encoders.text.hashed_ngrams.F",
    "mm.encoders..hashed_ngrams.TextHashedNgrams",
    "mm.encoders.text.huggingface.HuggingFaceText",
    "mm.encoders.vision.timm.TimmVision",
    "mm.layers.Pool",
    "mm.model.",
    ".",
    "",
]
TEXTS = ["", "evil", "../..", "/", "x" * 5000, "\x00", "${oc.env:HOME}", "hf-hub:a/b", "http://localhost/x", "é\n"]
JUNK: list[Any] = [None, True, [], {}, [[]], [None], {"a": {}}, {1: 2}, {None: None}, [*NUMBERS[:4]], *NUMBERS, *TEXTS]
EXTRA = [
    ("pretrained", "gpt2"),
    ("pretrained", True),
    ("init_from", "evil"),
    ("tokenizer", "gpt2"),
    ("tokenizer", "x" * 5000),
    ("config", {"model_type": "bert", "hidden_size": 10**6}),
    ("name", "hf-hub:a/b"),
    ("layers", 10**9),
    ("_target_", "evil.Evil"),
    ("_target_", "os.system"),
    ("evil.x", "1"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model"
    spec = DataSpec(
        inputs={"text": InputData(modality="text")},
        targets={"label": TargetData(kind="class", classes=tuple(CLASSES), facts={"counts": [3, 4]})},
    )
    model = checkpoint.build(copy.deepcopy(MODEL))
    transforms, codecs = checkpoint.build(TRANSFORMS), checkpoint.build(READERS)
    columns = {"text": "words", "label": "y"}
    checkpoint.save(path, model, transforms, codecs, spec, METRICS, "# A card\n", columns=columns)
    return path


def nodes(root: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything below a mapping or a list."""
    found = []
    pairs = root.items() if isinstance(root, dict) else enumerate(root) if isinstance(root, list) else ()
    for key, child in pairs:
        found += [(root, key), *nodes(child)]
    return found


def mutate(root: Any, draw: random.Random) -> str:
    """Change plain data in place. -> what was done"""
    where, key = draw.choice(nodes(root))
    value = where[key]
    how = draw.choice(["drop", "junk", "number", "target", "extra", "retype", "copy"])
    if how == "drop":
        del where[key]
    elif how == "junk":
        where[key] = copy.deepcopy(draw.choice(JUNK))
    elif how == "number":
        where, key = draw.choice([n for n in nodes(root) if isinstance(n[0][n[1]], int)] or [(where, key)])
        where[key] = draw.choice(NUMBERS)
    elif how == "target":
        found = [n for n in nodes(root) if n[1] == "_target_"]
        where, key = draw.choice(found or [(where, key)])
        where[key] = draw.choice(TARGETS)
    elif how == "extra":
        name, added = draw.choice(EXTRA)
        place = value if isinstance(value, dict) else where if isinstance(where, dict) else {}
        place[name] = copy.deepcopy(added)
    elif how == "retype":
        where[key] = str(value) if draw.random() < 0.4 else [value] if draw.random() < 0.5 else {"x": value}
    else:
        other, at = draw.choice(nodes(root))
        where[key] = copy.deepcopy(other[at])
    return f"{how} {key!r}"


def tear(path: Path, draw: random.Random) -> str:
    """Damage a file of a directory. -> what was done"""
    file = path / draw.choice(["config.yaml", "labels.json", "model.safetensors", "model.safetensors"])
    data = bytearray(file.read_bytes())
    how = draw.choice(["cut", "cut", "flip", "flip", "gone", "empty", "folder", "insert"])
    if how == "cut":
        del data[draw.randrange(len(data)) :]
    elif how == "flip":
        for _ in range(draw.choice([1, 20])):  # mostly in the header
            data[draw.randrange(min(len(data), 400))] ^= 1 << draw.randrange(8)
    elif how == "insert":
        data[8:8] = draw.randbytes(30)
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes(b"" if how == "empty" else bytes(data))
    return f"{how} {file.name}"


def change(path: Path, draw: random.Random) -> str:
    """Damage a model directory in one place, or in several. -> what was done"""
    kind = draw.random()
    if kind < 0.2:
        return tear(path, draw)
    if kind < 0.3:
        labels = json.loads((path / "labels.json").read_text())
        done = mutate(labels, draw)
        (path / "labels.json").write_text(json.dumps(labels))
        return f"labels: {done}"
    config = yaml.safe_load((path / "config.yaml").read_text())
    done = "; ".join(mutate(config, draw) for _ in range(draw.choice([1, 1, 1, 2, 3])) if nodes(config))
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return done


@pytest.mark.slow
def test_a_thousand_changed_directories_load_or_end_in_one_message(trained, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    answer = mm.load(trained).predict({"text": "a"})["label"]
    draw, loaded, sockets = random.Random(0), 0, []
    for turn in range(ROUNDS):
        path = tmp_path / "model"
        shutil.copytree(trained, path)
        done = change(path, draw)
        try:
            model = mm.load(path)
            loaded += 1
        except ValueError as error:
            assert str(error).strip(), (turn, done)
            if "a socket was opened" in str(error):
                sockets.append((turn, done))
        except BaseException as error:
            raise AssertionError(f"round {turn}: {done}: {type(error).__name__}: {error}") from error
        else:
            size = sum(p.numel() for p in model.model.parameters())
            assert size < 10**6, (turn, done)
        shutil.rmtree(path)
    assert not sockets
    assert not ran.exists()
    assert not [name for name, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))]
    assert ROUNDS / 20 < loaded < ROUNDS / 2  # neither is everything refused, nor is nothing changed
    assert mm.load(trained).predict({"text": "a"})["label"] == answer


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("encoders", "num_hash_buckets", 10**8),
        ("encoders", "embed_dim", 30_000),
        ("encoders", "num_hash_buckets", 10**12),
        ("heads", "embed_dim", 10**9),
    ],
)
def test_a_config_that_describes_a_far_larger_model_than_its_weights_is_refused(trained, tmp_path, part, key, value):
    path = shutil.copytree(trained, tmp_path / "model")
    config = yaml.safe_load((path / "config.yaml").read_text())
    next(iter(config["model"][part].values()))[key] = value
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"the config describes .* far more than its weights"):
        mm.load(path)


def test_a_config_of_endless_layers_is_refused(trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "model")
    config = yaml.safe_load((path / "config.yaml").read_text())
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 2, "nhead": 1, "dim_feedforward": 1}
    config["model"]["fusion"] = {"_target_": "torch.nn.TransformerEncoder", "encoder_layer": layer, "num_layers": 10**9}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"the config describes .* far more than its weights"):
        mm.load(path)


@pytest.mark.parametrize("name", ["x" * 5000, "\x00", "..", "/", "hub/name"])
def test_a_tokenizer_is_a_folder_of_the_directory(trained, tmp_path, name):
    path = shutil.copytree(trained, tmp_path / "model")
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["transforms"]["text"]["tokenizer"] = name
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"transforms\.text\.tokenizer: got .{3,90}, wanted a folder"):
        mm.load(path)


def test_loading_imports_no_compiler(trained):
    code = "import sys, mm; mm.load(sys.argv[1]); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(trained)], check=False).returncode == 0


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_torn_labels_are_named(trained, tmp_path, data):
    path = shutil.copytree(trained, tmp_path / "model")
    (path / "labels.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"labels\.json: is damaged: "):
        mm.load(path)
