"""Keys of config files: comments, types and descriptions are read from the files and the sources."""

import inspect

import pytest

from mm.assembly.config_keys import CONF, read_keys, read_summary, read_title
from mm.fusion import GatedFusion


@pytest.fixture
def keys(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "# The title\n# goes on.\ndefaults: [base]\n\n_target_: other.Thing\n"
        "a: 3 # behind the value\n"
        "# above the key\n# in two lines\nb: [1, 2]\n"
        "c: # behind the name\n  d: 1e-3\n  e: null # deeper\n"
        "f: {x: 1} # of a mapping in braces\n"
        "g: '#no' # a quoted one\n",
        encoding="utf-8",
    )
    return file


def test_comments_and_types(keys):
    found = {key.name: key for key in read_keys(keys)}
    assert list(found) == ["a", "b", "c", "c.d", "c.e", "f", "g"]
    assert found["a"] == ("a", "3", "int", "behind the value")
    assert found["b"] == ("b", "[1, 2]", "list", "above the key in two lines")
    assert found["c"] == ("c", "", "mapping", "behind the name")
    assert found["c.d"] == ("c.d", "1e-3", "float", "")
    assert found["c.e"] == ("c.e", "null", "", "deeper")
    assert found["f"] == ("f", "{x: 1}", "mapping", "of a mapping in braces")
    assert found["g"] == ("g", "'#no'", "str", "a quoted one")
    assert read_title(keys) == "The title\ngoes on."


def test_summary_of_what_a_file_builds():
    summary = (inspect.getdoc(GatedFusion) or "").splitlines()[0]
    assert read_summary(CONF / "model/fusion/gated.yaml") == summary
    assert read_summary(CONF / "task/optimizer/adamw.yaml") == ""


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda f: str(f.relative_to(CONF)))
def test_every_config_file_can_be_read(file):
    assert all(key.name for key in read_keys(file))


def test_arguments_that_a_file_leaves_out_are_read_from_the_signature():
    found = {key.name: key for key in read_keys(CONF / "model/encoders/audio/conv.yaml")}
    assert found["widths"].default == "[32, 64, 96]" and found["widths"].type == "Sequence[int]"
    assert found["frontend.hop"].default == "0.01" and "seconds" in found["frontend.hop"].description
