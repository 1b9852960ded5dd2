"""The help of a verb: what it shows of the parts that are chosen."""

import re

import pytest
from hydra import compose
from omegaconf import OmegaConf

from mm.assembly.config_keys import CONF
from mm.assembly.config_sections import compose_sections
from mm.assembly.registry import open_registry
from mm.cli._help import help_text


@pytest.fixture(scope="module")
def text() -> str:
    return help_text("train", ["--help"])


def row(text: str, key: str) -> str:
    """The line of a key, with its continued lines."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if re.match(rf"  {re.escape(key)}(=|\s|$)", line))
    end = next(i for i in range(first + 1, len(lines)) if not lines[i].startswith("   "))
    return " ".join(" ".join(lines[first:end]).split())


def test_a_key_has_its_value_its_type_and_a_sentence(text):
    assert row(text, "datamodule.batch_size") == (
        "datamodule.batch_size=64 [int] rows per process and step, at most this many under max_batch_length"
    )
    assert row(text, "task.optimizer.lr") == "task.optimizer.lr=1e-3 [float]"
    assert "[int | None]" in row(text, "model.fusion.hidden_dim")  # by the class
    assert "modality_subsets" in text and "every one of up to 4 inputs" in row(text, "task.modality_subsets.test")


def test_keys_are_grouped_by_the_chosen_options_and_none_comes_twice(text):
    sections = re.findall(r"^(\S+=\S+?)(?::|$)", text, re.M)
    assert {"datamodule=digits", "model/fusion=concat", "task=supervised", "trainer=default"} <= set(sections)
    keys = re.findall(r"^  ([\w.]+)=", text.partition("Keys of mm train")[2], re.M)
    assert len(keys) == len(set(keys)) > 100


def test_it_says_what_else_could_be_chosen_and_how_to_see_its_keys(text):
    assert re.search(r"model/fusion=concat +bottleneck cross_attention", text)
    assert "mm train datamodule=manifest --help" in text


def test_what_is_typed_is_shown_as_chosen():
    text = help_text("train", ["datamodule=manifest", "model/fusion=gated", "trainer.max_epochs=3", "-h"])
    assert "datamodule.columns.text=null" in text
    assert "pixel_noise" not in text
    assert "model.fusion.dropout=0.0" in text
    assert "trainer.max_epochs=3 " in text


def test_an_experiment_changes_the_values(text):
    changed = help_text("train", ["experiment=sst2", "--help"])
    assert row(text, "trainer.max_epochs").startswith("trainer.max_epochs=20 ")
    assert row(changed, "trainer.max_epochs").startswith("trainer.max_epochs=3 ")


@pytest.mark.parametrize(
    "words", [[], ["datamodule=manifest", "model/heads=detection"], ["experiment=digits_four_heads"]]
)
def test_values_are_those_that_hydra_composes(words):
    ours, _, _ = compose_sections("train", words, [])
    with open_registry():
        theirs = OmegaConf.to_container(compose("train", words), resolve=False)
    assert with_floats(ours) == with_floats(theirs)


def with_floats(node):
    """The same with numbers such as 1e-3 as numbers, which YAML 1.1 reads as texts."""
    if isinstance(node, dict):
        return {key: with_floats(value) for key, value in node.items()}
    if isinstance(node, list):
        return [with_floats(value) for value in node]
    return float(node) if isinstance(node, str) and re.fullmatch(r"\d+(\.\d+)?e-?\d+", node) else node


def test_an_option_in_a_folder_of_the_users(tmp_path):
    file = tmp_path / "model/fusion/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# A fusion of mine.\n_target_: my_pkg.Mine\nwidth: 7 # of what it fuses\n", encoding="utf-8")
    text = help_text("train", ["--config-dir", str(tmp_path), "model/fusion=mine", "--help"])
    assert "model/fusion=mine: A fusion of mine." in text
    assert row(text, "model.fusion.width") == "model.fusion.width=7 [int] of what it fuses"


@pytest.mark.parametrize("verb", [p.stem for p in CONF.glob("*.yaml")])
def test_every_verb_has_help(verb):
    text = help_text(verb, [])
    assert text.startswith(f"mm {verb}: ")
    assert f"Usage: mm {verb} " in text


def test_a_mistyped_key_is_a_mistake_in_help_too(mm):
    done = mm("train", "modl=3", "--help")
    assert done.status == 2
    assert "did you mean 'model'" in done.err


def test_help_and_a_verb_is_the_help_of_the_verb(mm):
    assert mm("help", "predict").out == mm("predict", "--help").out
    assert "contract tests" in mm("help", "check").out
