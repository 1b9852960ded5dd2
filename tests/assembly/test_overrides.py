"""The words of a command line."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mm.assembly.overrides import config_flags, flags_first, parse_override, quote_override, strip_prefix
from mm.runs.folder import override_key


@pytest.mark.parametrize(
    "word",
    ["seed=1", "+x.y=[a,b]", "~callbacks.prediction_table", "model/fusion=gated", "+a/b@c.d=e", "++run='a=b'", "--cfg"],
)
def test_a_key_needs_no_grammar(word):
    assert override_key(word) == parse_override(word)[0]


@pytest.mark.parametrize("text", ["a b", "it's", "a=b,c", "${x}", "[1"])
def test_a_quoted_text_is_read_as_it_was(text):
    assert OverridesParser.create().parse_override(f"run={quote_override(text)}").value() == text


def test_a_wandb_agents_arguments_are_taken_as_they_are():
    assert strip_prefix("--task.optimizer.lr=0.1") == "task.optimizer.lr=0.1"
    own = ["-m", "--multirun", "--config-dir=x", "--experimental-rerun=y", "seed=1"]
    assert [strip_prefix(arg) for arg in own] == own


def test_a_child_process_gets_the_flags_that_say_where_configs_lie():
    assert config_flags(["-m", "--config-dir", "here", "seed=1", "-cn=train"]) == ["--config-dir=here", "-cn=train"]
    assert config_flags(["--config-dir=a b=c", "--config-name", "d=e"]) == ["--config-dir=a b=c", "--config-name=d=e"]


def test_flags_are_typed_anywhere_with_their_values():
    typed = ["experiment=a", "--cfg", "job", "-m", "seed=1,2", "--config-dir", "here", "-p=model"]
    assert flags_first(typed) == [
        *("--cfg", "job", "-m", "--config-dir", "here", "-p=model"),
        *("experiment=a", "seed=1,2"),
    ]
    assert flags_first(["seed=1", "--cfg"]) == ["--cfg", "seed=1"]  # Hydra says what is missing
    assert flags_first(["seed=1", "--info", "searchpath"]) == ["--info=searchpath", "seed=1"]
    assert flags_first(["-i", "seed=1"]) == flags_first(["seed=1", "-i"]) == ["--info=all", "seed=1"]
