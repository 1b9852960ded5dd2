"""The column map of a manifest: which roles there are, and what each takes."""

import pytest

from mm.datamodules.manifest import column_map


def test_a_list_names_targets_by_their_columns():
    assert column_map({"targets": ["label", "price"]}, "c")["targets"] == {"label": "label", "price": "price"}
    assert column_map({"targets": {"kind": "label"}, "text": "words"}, "c") == {
        "targets": {"kind": "label"},
        "text": "words",
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"foo": "x"}, r"c\.foo: nothing reads it, wanted some of text, vision"),
        ({"txt": "x"}, r"c\.txt: nothing reads it.*did you mean 'text'\?"),
        ({"targets": "label"}, r"c\.targets: got 'label', wanted a mapping"),
        ({"targets": [1]}, r"c\.targets: got \[1\], wanted columns"),
        ({"inputs": ["a"]}, r"c\.inputs: got \['a'\], wanted a mapping"),
        ({"inputs": 3}, r"c\.inputs: got 3, wanted a mapping"),
        ([], r"c: got \[\], wanted a mapping"),
        ("text", "c: got 'text', wanted a mapping"),
    ],
)
def test_what_is_no_column_map_is_refused_by_name(columns, message):
    with pytest.raises(ValueError, match=message):
        column_map(columns, "c")


def test_a_datamodule_trains_on_targets_that_are_a_list(make):
    data = "words,label,price\n" + "".join(f"t {i},{'ab'[i % 2]},{'xy'[i % 2]}\n" for i in range(20))
    module = make("rows.csv", data, text="words", targets=["label", "price"])
    assert set(module.table.spec.targets) == {"label", "price"}
