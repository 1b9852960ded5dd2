"""A stranger's model directory: a thousand damaged or hostile ones run nothing and end in one message each."""

import copy
import datetime
import math
import random
import shutil
import socket
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml

import mm
from mm.checkpoint import build, save
from mm.tokenizers import train_cached_tokenizer
from mm.types import ColumnData, DataSpec, InputData, TargetData

PLANTED = ("evil.py", "fugashi.py", "sentencepiece.py", "jieba.py")  # in the working directory; some are optional parts
EVIL = "raise SystemExit('it ran')\n"
SAMPLE = {"text": "one two", "vision": torch.rand(3, 8, 8), "tabular": {"age": 3, "kind": "a"}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A small model directory with tokenizers, labels, a table and weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained")
    texts = ["one two three", "two three", "three one"] * 5
    tokenizer = str(train_cached_tokenizer(texts, "wordpiece", 60, folder))
    columns = ColumnData(name="age", kind="number", mean=2.0), ColumnData(name="kind", kind="category", classes=("a",))
    inputs = {
        "text": InputData(modality="text"),
        "vision": InputData(modality="vision", size=(8, 8), channels=3),
        "tabular": InputData(modality="tabular", columns=columns, cardinalities=(0, 2)),
    }
    written = {"tokenizer": tokenizer, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "max_length": 8}
    targets = {
        "target": TargetData(kind="class", classes=("no", "yes"), facts={"counts": [3, 3]}),
        "said": TargetData(kind="text", facts=written),
    }
    own = {"target": {"classes": ["no", "yes"], "counts": [3, 3]}, "said": written | {"num_layers": 1, "num_heads": 1}}
    encoders = {
        "text": {
            "_target_": "mm.encoders.text.transformer.TextTransformer", "embed_dim": 8, "num_layers": 1, "num_heads": 2,
            "dropout": 0.1, "max_length": 16, "tokenizer": tokenizer, "vocab_size": 60, "pool": "mean", "causal": False,
        },
        "vision": {
            "_target_": "mm.encoders.vision.conv.VisionConv", "channels": 3, "widths": [4, 8], "depth": 1,
            "groups": 2, "pool": "mean",
        },
        "tabular": {
            "_target_": "mm.encoders.tabular.mlp.TabularMLP", "embed_dim": 8, "cardinalities": [0, 2], "num_layers": 1,
            "dropout": 0.1, "pool": "concat",
        },
    }  # fmt: skip
    heads = {
        "target": {"_target_": "mm.heads.classification.ClassificationHead", "embed_dim": 8} | own["target"],
        "said": {"_target_": "mm.heads.seq2seq.Seq2SeqHead", "embed_dim": 8} | own["said"],
    }
    fusion = {"_target_": "mm.fusion.concat.ConcatFusion", "inputs": list(inputs), "embed_dim": 8}
    model = {"_target_": "mm.model.MultimodalModel", "embed_dim": 8, "shared_encoders": None}
    model |= {"encoders": encoders, "fusion": fusion, "heads": heads}
    transforms = {
        "text": {"_target_": "mm.transforms.text.tokens.TextTransform", "tokenizer": tokenizer, "max_length": 16},
        "vision": {
            "_target_": "mm.transforms.vision.pixels.ImageTransform", "size": [8, 8], "channels": 3, "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        "tabular": {"_target_": "mm.transforms.tabular.row.TabularTransform", "columns": list(columns)},
    }  # fmt: skip
    readers = {
        "target": {"_target_": "mm.targets.classes.ClassTarget"},
        "said": {
            "_target_": "mm.targets.text.TextTarget", "tokenizer": tokenizer, "vocab_size": 60,
            "max_length": 8, "folder": "x",
        },
    }  # fmt: skip
    metrics = {"target": {"accuracy": {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 2}}}
    task = {"scale": 1.0, "label": None, "retrieval": {"_target_": "mm.metrics.retrieval.Retrieval"}}
    save(
        folder / "model", build(model), build(transforms), build(readers), DataSpec(inputs=inputs, targets=targets),
        metrics, "# a card", columns={"text": "words", "target": "colour"}, task=task, split={"val": 0.1},
        rows={"train": torch.arange(4)},
    )  # fmt: skip
    config = yaml.safe_load((folder / "model/config.yaml").read_text(encoding="utf-8"))
    config["calibration"] = {"target": {"temperature": 2.0, "bias": 0.0, "quantiles": [0.9], "alpha": 0.1}}
    (folder / "model/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "model"


def test_the_directory_loads(directory):
    answer = mm.load(directory).predict(SAMPLE)
    assert answer["target"]["prediction"] in ("no", "yes")
    assert isinstance(answer["said"]["prediction"], str)


def nested(depth: int) -> list:
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


VALUES = [
    None, True, False, -1, 0, 1, 3, 10**6, 10**9, 10**12, 10**30, 1e308, -0.5, math.nan, math.inf, "", "x", "x" * 1000,
    "${oc.env:HOME}", "${name}", "???", "../..", "/etc/passwd", "/", ".", "a\0b", "evil", "evil.x", "os.system",
    "bytes", "wordpiece", "\x1b[2J", [], {}, [[]], ["a"], [1, 2, 3], {"a": 1}, {1: 2}, {None: None}, nested(30),
    nested(120), datetime.date(2000, 1, 1), b"abc", {"_target_": "os.system", "command": "touch HACKED"},
    {"_target_": "evil.Evil"}, {"_target_": "evil.x.Evil"}, {"_target_": "builtins.exec", "_args_": ["import evil"]},
    {"_target_": "pathlib.Path.touch", "self": "HACKED"}, {"_target_": "runpy.run_path", "path_name": "evil.py"},
    {"_target_": "torch.hub.load", "repo_or_dir": "evil", "model": "evil", "source": "local"}, {"_target_": "mm.load"},
    {"_target_": "torch.load", "f": "HACKED"}, {"_target_": "torch.nn.modules.module.Path"}, {"_target_": 3},
    {"_target_": "torch.nn.Linear", "in_features": 10**5, "out_features": 10**5}, {"_target_": "torch.nn.init.zeros_"},
    {"_target_": "torch.nn.Sequential"}, {"_target_": "mm.transforms.evil.Evil"}, {"_target_": "transformers.pipeline"},
    {"_target_": "torch.nn.Linear\n.x"}, {"_target_": "mm.encoders.text.huggingface.HuggingFaceText",
    "pretrained": "someone/else", "config": None, "random_init": False, "pool": "mean"},
]  # fmt: skip
INSERTED = [b"\0", b"\xff", b"{", b"!!python/object/apply:os.system ['touch HACKED']", b"*x", b"[" * 5000, b"9" * 5000]
KEYS = [
    "pretrained", "init_from", "_target_", "_args_", "_partial_", "tokenizer", "config", "auto_map", "requires",
    "checkpoint_path", "attn_implementation", "use_pretrained_backbone", "evil", "classes", "columns", "", 3, None,
]  # fmt: skip


def places(node: object) -> list[tuple]:
    """(holder, key) of every value below a node."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    return [place for key in keys for place in [(node, key), *places(node[key])]]  # type: ignore[index]


def mutate_plain(draw: random.Random, node: object) -> str:
    """Change one value of plain data, in place."""
    holder, key = draw.choice(places(node))
    what = draw.choice(["drop", "value", "value", "value", "rename", "add", "double", "swap"])
    if what == "drop":
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        holder[draw.choice(KEYS)] = holder.pop(key)
    elif what == "add" and isinstance(holder, dict):
        holder[draw.choice(KEYS)] = copy.deepcopy(draw.choice(VALUES))
    elif what == "double":
        holder[key] = [copy.deepcopy(holder[key])] * 2
    elif what == "swap":
        other, place = draw.choice(places(node))
        holder[key] = copy.deepcopy(other[place])
    else:
        holder[key] = copy.deepcopy(draw.choice(VALUES))
    return f"{what} at {key!r:.30} -> {holder.get(key) if isinstance(holder, dict) else ''!r:.60}"


def mutate_bytes(draw: random.Random, file: Path) -> str:
    """Change a file as a disk, a network or a stranger would."""
    data = bytearray(file.read_bytes())
    what = draw.choice(["torn", "flip", "flip", "gone", "empty", "noise", "link", "folder", "insert"])
    file.unlink()
    if what == "torn":
        file.write_bytes(data[: draw.randrange(len(data) + 1)])
    elif what == "flip":
        for _ in range(draw.choice([1, 1, 3, 30])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(data)
    elif what == "insert":
        at = draw.randrange(len(data))
        file.write_bytes(data[:at] + draw.choice(INSERTED) + data[at:])
    elif what == "empty":
        file.touch()
    elif what == "noise":
        file.write_bytes(draw.randbytes(200))
    elif what == "link":
        file.symlink_to("/etc/passwd")
    elif what == "folder":
        file.mkdir()
    return what


def mutate_json(draw: random.Random, file: Path) -> str:
    data = yaml.safe_load(file.read_text(encoding="utf-8")) if file.suffix == ".yaml" else json_of(file)
    told = [mutate_plain(draw, data) for _ in range(draw.choice([1, 1, 1, 2, 4])) if places(data)]
    if file.suffix == ".yaml":
        text = yaml.safe_dump(data)
    else:
        import json

        text = json.dumps(data, default=str, skipkeys=True)
    file.write_text(text, encoding="utf-8")
    return "; ".join(told)


def json_of(file: Path) -> object:
    import json

    return json.loads(file.read_text(encoding="utf-8"))


def mutate(number: int, folder: Path) -> str:
    """Change a directory; the number decides how."""
    draw = random.Random(number)
    if draw.random() < 0.6:
        file = folder / "config.yaml"
        return f"config.yaml: {mutate_json(draw, file)}"
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "README.md")
    file = draw.choice(files)
    if file.suffix == ".json" and draw.random() < 0.6:
        return f"{file.relative_to(folder)}: {mutate_json(draw, file)}"
    return f"{file.relative_to(folder)}: {mutate_bytes(draw, file)}"


def no_socket(*args, **kwargs):
    raise AssertionError("a socket was opened")


@pytest.fixture
def hostile_folder(tmp_path, monkeypatch):
    """A working directory, on the path, whose modules must not run; and no sockets."""
    here = tmp_path / "here"
    (here / "evil").mkdir(parents=True)
    for name in PLANTED:
        (here / name).write_text(EVIL, encoding="utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(here)])
    monkeypatch.setattr(socket, "socket", no_socket)
    before, entries = set(sys.modules), list(sys.path)
    yield here
    assert sys.path == entries
    found = {name: str(getattr(sys.modules[name], "__file__", "")) for name in set(sys.modules) - before}
    assert not [name for name, file in found.items() if str(here) in file]
    assert {file.name for file in here.iterdir()} == {"evil", *PLANTED}


def load_mutated(directory: Path, folder: Path, number: int) -> bool:
    """Load a changed copy and predict with it. -> whether it works; else it has ended in one message"""
    shutil.copytree(directory, folder)
    told = mutate(number, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mm.load(folder).predict(SAMPLE)
        return True
    except ValueError as error:
        assert str(error).strip(), f"{number}: {told}"
        assert len(str(error)) < 1500, f"{number}: {told}"
        return False
    except BaseException as error:
        raise AssertionError(f"{number}: {told}: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(folder)


def test_mutated_directories_run_nothing_and_end_in_one_message(directory, hostile_folder, tmp_path):
    works = [load_mutated(directory, tmp_path / "m", number) for number in range(100)]
    assert 5 < sum(works) < 50


@pytest.mark.slow
def test_a_thousand_mutated_directories(directory, hostile_folder, tmp_path):
    works = [load_mutated(directory, tmp_path / "m", number) for number in range(100, 1000)]
    assert 50 < sum(works) < 450


def test_many_samples_are_predicted_a_few_at_a_time(directory, monkeypatch):
    loaded = mm.load(directory)
    samples = [{"text": f"{'one two three ' * (1 + i % 5)}"} for i in range(10)]
    whole = loaded.predict(samples, batch_size=100)
    sizes = []
    read = type(loaded).read
    monkeypatch.setattr(
        type(loaded), "read", lambda self, part, first: sizes.append(len(part)) or read(self, part, first)
    )
    parts = loaded.predict(samples, batch_size=4)
    assert sizes == [4, 4, 2]
    for one, other in zip(parts, whole, strict=True):
        assert one["said"]["prediction"] == other["said"]["prediction"]
        assert one["target"]["probability"] == pytest.approx(other["target"]["probability"], abs=1e-5)
    with pytest.raises(ValueError, match="sample 5, 'text'"):
        loaded.predict([*samples[:5], {"text": 3}], batch_size=2)
    with pytest.raises(ValueError, match="batch_size: got 0"):
        loaded.predict(samples, batch_size=0)
    assert loaded.predict([]) == []
