"""Arguments of classes are read from their source, and a number stands in one place: in the signature."""

import inspect
import re
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from mm.assembly.config_keys import CONF, read_yaml
from mm.assembly.construct import construct
from mm.assembly.signatures import default_arguments, described_arguments, read_arguments, with_defaults


def test_arguments_of_a_google_docstring():
    text = (
        "Does it.\n\nArgs:\n    a: The first,\n        which goes on.\n    b (int): The second.\n\nReturns:\n    c: no."
    )
    assert described_arguments(text) == {"a": "The first, which goes on.", "b": "The second."}


def test_arguments_of_a_paragraph():
    text = "Does it.\n\na, b: both of them; c: the third.\nErrors: ValueError."
    assert described_arguments(text) == {"a": "both of them", "b": "both of them", "c": "the third"}


def test_arguments_come_from_the_source_and_from_bases():
    found = read_arguments("mm.datamodules.manifest.ManifestDataModule")
    assert {"path", "columns", "batch_size", "seed"} <= set(found)
    assert read_arguments("torch.optim.AdamW") == {}
    assert read_arguments("mm.nowhere.Nothing") == {}


class Other:
    """Not of `mm`."""

    def __init__(self, a: int = 1):
        pass


def test_defaults_are_those_of_the_signature():
    target = "mm.encoders.audio.conv.AudioConv"
    parameters = inspect.signature(get_class(target)).parameters
    found = default_arguments(target)
    assert list(found) == ["embed_dim", "widths", "strides", "pool"]
    assert found == {k: list(v) if isinstance(v := parameters[k].default, tuple) else v for k in found}
    assert default_arguments(f"{__name__}.Other") == {}
    found["widths"].append(1)
    assert default_arguments(target)["widths"] == [32, 64, 96]


def test_arguments_that_code_passes_on_are_no_keys():
    found = default_arguments("mm.datamodules.manifest.ManifestDataModule")
    assert {"quoting", "column_names"} <= set(found)
    assert not {"readers", "known", "trained", "batch_size"} & set(found)  # of every data module: conf/datamodule/base


def test_every_key_of_a_part_is_described():
    """The help of a verb prints the description; whether an argument is a key does not depend on it."""
    targets = {name for file in CONF.rglob("*.yaml") for name in re.findall(r"_target_: (mm\.\S+)", file.read_text())}
    assert len(targets) > 100
    arguments = {(name, key): read_arguments(name)[key] for name in targets for key in default_arguments(name)}
    assert not [key for key, argument in arguments.items() if not argument.description]


def test_plain_data_gets_what_it_leaves_out():
    node = {
        "a": [{"_target_": "mm.fusion.sum.SumFusion", "reduce": "max"}],
        "b": {"_target_": "torch.nn.Linear"},
        "c": 1,
    }
    assert with_defaults(node) == {
        "a": [{"_target_": "mm.fusion.sum.SumFusion", "reduce": "max", "anchor": None}],
        "b": {"_target_": "torch.nn.Linear"},
        "c": 1,
    }


# Yaml files whose values differ from the signature, and why.
DIFFER: set[tuple[str, str]] = {
    ("datamodule/audio.yaml", "folder"),  # one class, a yaml for each modality
    ("datamodule/text.yaml", "folder"),
    ("datamodule/vision.yaml", "folder"),
    ("model/heads/causal_lm.yaml", "normalize"),  # answers are written, and not parts of a text as those of SQuAD
    ("task/scheduler/constant.yaml", "warmup"),  # a schedule that is built by hand warms up where it is asked to
    ("task/scheduler/cosine.yaml", "warmup"),
    ("task/scheduler/linear.yaml", "warmup"),
}
# Groups whose yamls leave out what the signature states; the others may state it again, but nothing else.
ONCE = ("callbacks/", "datamodule/", "model/", "robustness/", "task/")
FILES = sorted(CONF.rglob("*.yaml"))


def restated(node: Any) -> list[tuple[str, Any, Any]]:
    """Return key, value of the yaml and default of the signature of each literal that both state.

    A mapping lists its keys, so that each can be set by its own name, and states nothing else.
    """
    if not isinstance(node, dict):
        return []
    found = [pair for child in node.values() for pair in restated(child)]
    defaults = default_arguments(node["_target_"]) if "_target_" in node else {}
    stated = {key: value for key, value in node.items() if not re.search(r"\?\?\?|\$\{", str(value))}
    literals = {key: value for key, value in stated.items() if not isinstance(value, dict)}
    return found + [(key, value, defaults[key]) for key, value in literals.items() if key in defaults]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_a_yaml_and_a_signature_do_not_contradict_each_other(file):
    name = str(file.relative_to(CONF))
    for key, value, default in restated(read_yaml(file)):
        if value != default:
            assert (name, key) in DIFFER, f"{name}: {key} is {value}, but {default} in the signature"
        elif name.startswith(ONCE):
            pytest.fail(f"{name}: {key} is the default of the signature: leave it out")


@pytest.mark.parametrize("name", ["base", "sources"])
def test_settings_of_every_data_module_are_the_defaults_of_its_signature(name):
    """They stand in a yaml as well, which data modules of a user's own include."""
    from mm.data.module import DataModule

    parameters = inspect.signature(DataModule).parameters
    for key, value in yaml.safe_load((CONF / f"datamodule/{name}.yaml").read_text(encoding="utf-8")).items():
        if key not in ("defaults", "seed", "split"):
            assert value == parameters[key].default, key


FROM_DATA = {"inputs": ["text", "audio"], "embed_dim": 8, "channels": 3, "sample_rate": 8000, "cardinalities": [0, 4]}
FROM_DATA |= {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "tokenizer": "bytes", "columns": []}
SOURCES = {"huggingface", "minilm", "efficientnet_lite0"}  # which need weights or a config
BUILT = re.compile(r"model/(encoders|fusion)/|datamodule/transforms/")
PARTS = [f for f in FILES if BUILT.search(str(f)) and f.stem not in SOURCES and "_target_" in read_yaml(f)]


def from_data(node: Any) -> Any:
    """Return a yaml with what the data fills; what it need not fill is left to the signature."""
    if not isinstance(node, dict):
        return node
    open_keys = [key for key, value in node.items() if isinstance(value, str) and ("???" in value or "${" in value)]
    filled = {**node, **{key: FROM_DATA.get(key) for key in open_keys}}
    return {key: from_data(value) for key, value in filled.items() if value is not None}


@pytest.mark.parametrize("file", PARTS, ids=lambda file: str(file.relative_to(CONF)))
def test_a_part_that_is_built_from_python_is_that_of_its_yaml(file):
    node = from_data(read_yaml(file))
    from_python, from_yaml = (construct(part, "part") for part in (node, with_defaults(node)))
    assert from_python.get_config() == from_yaml.get_config()
    assert set(default_arguments(node["_target_"])) <= set(from_python.get_config())


def test_a_class_may_describe_the_arguments_that_it_inherits():
    found = read_arguments("mm.heads.relation.RelationHead")
    assert "the relation from e1 to e2" in found["classes"].description
    assert "Dropout" in found["dropout"].description
