"""Keys of config files: comments, types and descriptions are read from the files and the sources."""

import pytest

from mm.cli._keys import CONF, described_arguments, read_arguments, read_keys, read_summary, read_title


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


def test_summary_of_what_a_file_builds():
    assert read_summary(CONF / "model/fusion/gated.yaml").startswith("Gate per feature")
    assert read_summary(CONF / "task/optimizer/adamw.yaml") == ""


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda f: str(f.relative_to(CONF)))
def test_every_config_file_can_be_read(file):
    assert all(key.name for key in read_keys(file))
