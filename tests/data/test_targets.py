import pytest

from mm.data.targets import check_labelled
from mm.datamodules.manifest import ManifestDataModule
from mm.targets.regression import RegressionTarget
from mm.targets.tags import TagTarget
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.text.tokens import TextTransform

NONE = {"val": 0.0, "test": 0.0}


def test_nothing_to_learn_from(make) -> None:
    with pytest.raises(ValueError, match="column 'y': no training row is labelled; look at datamodule.columns.target"):
        make("a.csv", "text,y,split\na,,train\nb,,train\nc,x,val\n", text="text", target="y")
    with pytest.raises(ValueError, match="column 'y': there are no training rows to learn it from"):
        make("a.csv", "text,y,split\na,x,test\n", text="text", target="y")


def test_tags_of_a_mixture_beside_another_input(make, tmp_path) -> None:
    """Whatever of the inputs a loader reads; an error names the column of its own file."""
    (tmp_path / "b.csv").write_text("said,tag,split\none two,O,train\n")
    own = {"text": "said", "target": "tag"}
    paths = [{"path": str(tmp_path / "a.csv")}, {"path": str(tmp_path / "b.csv"), "columns": own}]

    def build(path, **shared):
        (tmp_path / "a.csv").write_text("text,mark,sound,split\nAnn is,B-who O,,train\nx,O,,train\n")
        return ManifestDataModule(path=paths, **shared)

    module = make(
        "a.csv", kind=build, text="text", target="mark", split=NONE, readers={"target": TagTarget("text")}, use=False
    )
    module.use({"text": TextTransform("bytes", return_offsets=True), "audio": AudioTransform(8000)})
    assert module.batch([0, 1]).targets["target"].tolist() == [[1, -100, -100, -100, 0, -100], [0] + [-100] * 5]
    assert (module.batch([0, 1], only=["audio"]).targets["target"] == -100).all()
    with pytest.raises(ValueError, match=r"b.csv: row 0 .*column 'tag': 1 tags, but the text has 2 words"):
        list(module.loader("train"))


def test_where_nothing_trains_all_rows_say_which_classes_there_are(make) -> None:
    table = make("a.csv", "text,y\na,x\nb,\nc,v\n", text="text", target="y", draw_split=False, known={"y": None}).table
    assert "target" not in table.targets  # the model knows no such target
    rows = "text,y\na,x\nb,\nc,v\n"
    table = make("a.csv", rows, text="text", target="y", draw_split=False, known={"target": None}).table
    assert table.spec.targets["target"].classes == ("v", "x")
    assert table.targets["target"].tolist() == [1, -100, 0]
    learnt = {"target": table.spec.targets["target"]}
    table = make("a.csv", rows, text="text", target="y", draw_split=False, known=learnt).table
    assert table.spec.targets["target"].classes == ("v", "x")
    assert table.spec.targets["target"].facts["counts"] == [0, 0]  # of rows that train: none does


LABELS = "text,y,split\na,l,train\nb,k,train\nc,{val},val\n{text},l,val\ne,{test},test\n"


@pytest.mark.parametrize("reader", [{}, {"target": TagTarget("text")}])
def test_validation_rows_without_a_label_are_found_before_training(make, printed_log, reader) -> None:
    """Of values in one tensor, and in a list of tensors; a label of a row without an input does not count."""
    data = LABELS.replace(",l", ",B-x").replace(",k", ",O") if reader else LABELS
    table = make(
        "a.csv",
        data.format(val="", text="", test="O" if reader else "l"),
        text="text",
        target="y",
        readers=reader,
        use=False,
    ).table
    with pytest.raises(
        ValueError, match=r"none of the 2 validation rows has both an input and a label in column 'y': .*"
    ):
        check_labelled(table, ["target"], "val/loss")
    check_labelled(table, ["target"], None)  # there is no validation
    table = make(
        "a.csv", data.format(val="O" if reader else "k", text="", test=""), text="text", target="y", readers=reader
    )
    check_labelled(table.table, ["target"], "val/loss")
    assert "none of the 1 test rows has both an input and a label in column 'y': they are predicted, but" in (
        printed_log.readouterr().out
    )


def test_of_several_targets_the_monitored_one_needs_labels(make, printed_log) -> None:
    text = "text,y,z,split\na,l,1,train\nb,k,2,train\nc,l,,val\n"
    table = make("a.csv", text, text="text", targets={"y": "y", "z": "z"}).table
    check_labelled(table, ["y", "z"], "val/loss")
    assert "validation rows has both an input and a label in column 'z'" in printed_log.readouterr().out
    with pytest.raises(ValueError, match=r"in column 'z': nothing could be measured .*\(val/z/accuracy\)"):
        check_labelled(table, ["y", "z"], "val/z/accuracy")


def test_a_class_a_row_is_named(make) -> None:
    module = make("a.csv", "text,y\n" + "".join(f"w{k},c{k}\n" for k in range(20)), text="text", target="y")
    with pytest.raises(
        ValueError, match="each of the 20 classes of 'y' has a single row, which trains: is it a number"
    ):
        module.rows("val")


def test_a_class_that_no_training_row_has(make) -> None:
    with pytest.raises(ValueError, match=r"row 2 .*column 'y': unknown label 'x'; training rows have k, l"):
        make("a.csv", "text,y,split\na,l,train\nb,k,train\nc,x,val\n", text="text", target="y")


@pytest.mark.parametrize(
    ("codec", "cells", "message"),
    [
        (RegressionTarget(), ["many", "few", "2"], r"column 'y': no training row .* a.csv: row 0 .*: got 'many'"),
        (
            TagTarget("text"),
            ["E-a", "I-a", "B-a"],
            r"column 'y': no training row .* a.csv: row 0 .*: got the tag 'E-a'",
        ),
    ],
)
def test_training_rows_without_a_label_that_can_be_read_are_an_error(make, codec, cells, message) -> None:
    """With on_error=missing their faults are no errors of their own, and nothing would be learnt."""
    rows = "".join(f"w,{cell},{split}\n" for cell, split in zip(cells, ["train", "train", "val"], strict=True))
    with pytest.raises(ValueError, match=message):
        _ = make(
            "a.csv",
            f"text,y,split\n{rows}",
            text="text",
            target="y",
            readers={"target": codec},
            on_error="missing",
            use=False,
        ).table
