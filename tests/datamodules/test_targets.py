import pytest

from mm.datamodules.manifest import ManifestDataModule
from mm.transforms.audio.waveform import Waveform
from mm.transforms.target.tags import Tags
from mm.transforms.text.tokens import Tokens

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
        "a.csv", kind=build, text="text", target="mark", split=NONE, readers={"target": Tags("text")}, use=False
    )
    module.use({"text": Tokens("bytes", places=True), "audio": Waveform(8000)})
    assert module.batch([0, 1]).targets["target"].tolist() == [[1, -100, -100, -100, 0, -100], [0] + [-100] * 5]
    assert (module.batch([0, 1], only=["audio"]).targets["target"] == -100).all()
    with pytest.raises(ValueError, match=r"b.csv: row 0 .*column 'tag': 1 tags, but the text has 2 words"):
        list(module.loader("train"))


def test_where_nothing_trains_all_rows_say_which_classes_there_are(make) -> None:
    table = make("a.csv", "text,y\na,x\nb,\nc,v\n", text="text", target="y", whole=True, known={"y": None}).table
    assert "target" not in table.targets  # the model knows no such target
    rows = "text,y\na,x\nb,\nc,v\n"
    table = make("a.csv", rows, text="text", target="y", whole=True, known={"target": None}).table
    assert table.spec.targets["target"].classes == ("v", "x")
    assert table.targets["target"].tolist() == [1, -100, 0]
    learnt = {"target": table.spec.targets["target"]}
    table = make("a.csv", rows, text="text", target="y", whole=True, known=learnt).table
    assert table.spec.targets["target"].classes == ("v", "x")
    assert table.spec.targets["target"].facts["counts"] == [0, 0]  # of rows that train: none does
