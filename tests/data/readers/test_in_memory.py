"""Tables in memory are read as files of the same rows are."""

import csv
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from mm.assembly.signatures import with_defaults
from mm.data.readers.in_memory import is_table, read_table
from mm.datamodules.manifest import Manifest, ManifestDataModule
from mm.modalities import get_modality
from mm.types import Batch, InputData, InputSpec

CONF = Path(__file__).parents[3] / "conf"
ROWS = [{"text": f"text {i}", "sentiment": "good" if i % 3 else "bad", "n": i} for i in range(30)]


@pytest.fixture
def tweets(tmp_path: Path) -> Path:
    with (tmp_path / "tweets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "sentiment", "n"])
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path / "tweets.csv"


class Frame:
    """What speaks Arrow's protocol and nothing else, as data frames of other libraries do."""

    def __init__(self, table: pyarrow.Table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def first_batches(data: ManifestDataModule) -> list[Batch]:
    return [next(iter(x)) for x in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        torch.equal(a.row, b.row)
        and all(torch.equal(a.inputs[n], b.inputs[n]) for n in a.inputs)  # type: ignore[arg-type]
        and all(torch.equal(a.targets[n], b.targets[n]) for n in a.targets)
        for a, b in pairs
    )


def test_two_arguments_are_enough_for_whole_batches(tweets: Path) -> None:
    data = ManifestDataModule(tweets, {"text": "text", "target": "sentiment"}, num_workers=0)
    batch = next(iter(data.train_dataloader()))
    assert batch.masks["text"].any(1).all() and batch.inputs["text"].shape[0] == len(batch.row) == 24
    assert data.spec.targets["target"].classes == ("bad", "good")
    assert data.batching.batch_size == 64 and data.split.val == 0.1


@pytest.mark.parametrize(
    "table",
    [
        ROWS,
        pyarrow.Table.from_pylist(ROWS),
        Frame(pyarrow.Table.from_pylist(ROWS)),
        Frame(pyarrow.Table.from_pylist(ROWS).cast(pyarrow.schema([("text", pyarrow.string_view()),
            ("sentiment", pyarrow.dictionary(pyarrow.int8(), pyarrow.string())), ("n", pyarrow.int64())]))),
    ],
    ids=["rows", "arrow", "protocol", "views"],
)  # fmt: skip
def test_a_table_in_memory_gives_the_batches_of_its_file(tweets: Path, table: Any) -> None:
    roles: Any = {"inputs": {"text": "text", "tabular": "n"}, "targets": {"mood": "sentiment"}, "num_workers": 0}
    file, memory = Manifest(tweets, **roles), Manifest(table, **roles)
    assert same(first_batches(file), first_batches(memory))
    assert file.spec == memory.spec and list(memory.spec.inputs) == ["text", "tabular"]


def test_data_frames_of_pandas_and_polars(tweets: Path) -> None:
    roles: Any = {"inputs": {"text": "text"}, "targets": ["sentiment"], "num_workers": 0}
    wanted = first_batches(Manifest(tweets, **roles))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    assert same(first_batches(Manifest(frame, **roles)), wanted)
    assert read_table(pandas.DataFrame({"a": [1, "x", None]}))["a"][:] == ["1", "x", None]
    polars = pytest.importorskip("polars")
    assert same(first_batches(Manifest(polars.DataFrame(ROWS), **roles)), wanted)


def test_inputs_name_their_columns_and_modalities(tmp_path: Path) -> None:
    for i in range(12):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    rows = [{"s1": f"a{i}", "s2": f"b{i}", "photo": str(tmp_path / f"{i}.png"), "y": "uv"[i % 2]} for i in range(12)]
    inputs = {"vision": "photo", "premise": {"column": "s1", "modality": "text"}}
    data = Manifest(rows, inputs=inputs, targets={"label": "y"}, num_workers=0)
    assert data.spec.inputs["vision"].size == (8, 8) and list(data.spec.targets) == ["label"]
    (batch, *_) = first_batches(data)
    assert batch.inputs["vision"].shape[1:] == (1, 8, 8) and batch.masks["premise"].any()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="inputs: got 'hint': 's2', which is called as no modality; wanted"):
        Manifest(rows, inputs={"hint": "s2"})
    assert list(Manifest(rows, {"text": "s1", "vision": "photo"}, inputs=["text"]).spec.inputs) == ["text"]


def test_several_sources_may_mix_files_and_tables(tweets: Path) -> None:
    data = Manifest([tweets, {"path": ROWS[:9], "weight": 2.0}], {"text": "text", "target": "sentiment"})
    assert len(data.ids) == 39 and data.source == "tweets.csv + rows"


def test_what_is_no_table_in_memory() -> None:
    assert not is_table([{"path": "a.csv", "weight": 2.0}, {"path": "b.csv"}]) and not is_table(["a.csv"])
    assert not is_table("a.csv") and not is_table([]) and is_table([{"path": "a.png", "label": "x"}])
    with pytest.raises(ValueError, match="rows: got the column name 1, wanted a text"):
        read_table([{1: "a"}])
    with pytest.raises(ValueError, match="Table: has no rows"):
        read_table(pyarrow.table({"a": []}))


def test_defaults_are_those_of_the_config() -> None:
    given = {}
    for name in ("base", "sources", "manifest"):
        given |= OmegaConf.to_container(OmegaConf.load(CONF / f"datamodule/{name}.yaml"), resolve=False)  # type: ignore[operator]
    given = with_defaults(given)
    data = Manifest([{"text": "a", "target": "b"}])
    assert data.columns == given["columns"]
    for key in ("num_workers", "shuffle", "on_error", "column_names", "quoting"):
        assert getattr(data, key) == given[key], key
    assert vars(data.split) == given["split"] and data.seed == 0
    assert (data.mixing.kind, data.mixing.temperature, data.mixing.homogeneous_batches) == ("proportional", 2.0, False)
    assert (data.batching.batch_size, data.batching.buckets, data.batching.budget) == (64, 16, {})
    assert (given["batch_size"], given["num_buckets"], given["mixing"]) == (64, 16, "proportional")


def test_default_transforms_are_those_that_default_encoders_ask_for() -> None:
    node = yaml.safe_load((CONF / "model/encoders/text/transformer.yaml").read_text(encoding="utf-8"))
    encoder: Any = OmegaConf.create(with_defaults(node))
    text = InputSpec(modality="text", tokenizer=encoder.tokenizer, max_length=encoder.max_length)
    transform: Any = get_modality("text").transform(InputData(modality="text"))
    asked: Any = get_modality("text").transform(InputData(modality="text"), text)
    assert transform.get_config() == asked.get_config()
