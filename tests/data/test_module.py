import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
import torch
from lightning import LightningDataModule, Trainer
from PIL import Image
from torch import Tensor

from mm.applying import count_faults
from mm.data.loading import Rows
from mm.data.module import DataModule
from mm.data.sampling import Draw
from mm.data_source import DataSource, check_data_source, data_source
from mm.features.store import notes_of
from mm.runs.summary import data_notes
from mm.targets.multilabel import MultilabelTarget
from mm.targets.regression import RegressionTarget
from mm.targets.span import SpanTarget
from mm.tensors import labelled
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.corrupt.corrupted import CorruptedTransform, DroppedInput
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform
from mm.types import IGNORE, Batch, DataSpec, TargetData

TEXTS = "text,target,split\n" + "".join(f"word{k},{'ab'[k % 2]},train\n" for k in range(21)) + "x,a,val\ny,b,test\n"


class Doubled(TextTransform):
    """Text in training only is said twice, so that a test sees which loader augments."""

    def __call__(self, raw: str, train: bool = False):
        return super().__call__(raw * 2 if train else raw)


def test_loaders(make: Callable[..., DataModule]) -> None:
    module = make("a.csv", TEXTS, text="text", target="target")
    module.use({"text": Doubled("bytes")})
    train = list(module.train_dataloader())
    assert [len(b.row) for b in train] == [8, 8, 5]
    assert sorted(torch.cat([b.row for b in train]).tolist()) == list(range(21))
    assert train[0].inputs["text"].shape[1] == 12
    assert train[0].row.tolist() != sorted(train[0].row.tolist())
    (test,) = module.test_dataloader()
    assert isinstance(test, Batch)
    assert test.inputs["text"].tolist() == [[ord("y") + 1]]
    assert test.targets["target"].tolist() == [1]
    with pytest.raises(ValueError, match="split: got 'dev', wanted one of train, val, test, all"):
        module.rows("dev")
    assert len(module.rows("all")) == 23


def test_two_instances_agree(make: Callable[..., DataModule]) -> None:
    rows = "text,target\n" + "".join(f"w{k},{'abc'[k % 3]}\n" for k in range(60))
    one, two = (make("a.csv", rows, text="text", target="target") for _ in range(2))
    assert (one.table.split == two.table.split).all()
    assert all(torch.equal(a.row, b.row) for a, b in zip(one.train_dataloader(), two.train_dataloader(), strict=True))


def write_media(folder: Path) -> str:
    """Rows of three inputs; what is wrong, by row. 0, 7 and 8 are fine, 9 is in no split."""
    (folder / "m").mkdir(exist_ok=True)
    for k in range(10):
        Image.new("RGB", (5, 5), (k, k, k)).save(folder / f"m/{k}.png")
        soundfile.write(folder / f"m/{k}.wav", np.full(80, 0.1), 8000)
    (folder / "m/2.png").write_bytes(b"no picture")
    soundfile.write(folder / "m/3.wav", np.zeros(0), 8000)
    soundfile.write(folder / "m/4.wav", np.array([np.nan], np.float32), 8000, subtype="FLOAT")
    (folder / "m/9.wav").unlink()
    lines = ["id,words,photo,sound,label,split"]
    for k in range(10):
        words = "caf\udce9" if k == 5 else f"w{k}"
        photo = "m/none.png" if k == 1 else f"m/{k}.png"
        label = "z" if k == 8 else "ab"[k % 2]
        split = "" if k == 9 else "val" if k == 8 else "train"
        lines.append(f"{'i0' if k == 6 else f'i{k}'},{words},{photo},m/{k}.wav,{label},{split}")
    return "\n".join([*lines, "i10,w,m/0.png,m/0.wav,a,test"]) + "\n"


MEDIA = {"text": "words", "vision": "photo", "audio": "sound", "target": "label"}
WRONG = {
    1: ("photo", "no file "),
    2: ("photo", "can't read the image"),
    3: ("sound", "the sound is empty"),
    4: ("sound", "NaN or infinite"),
    5: ("words", "not valid UTF-8: byte 4 of the cell is 0xe9"),
    6: ("id", "the id 'i0' is also that of row 0"),
    8: ("label", "unknown label 'z'; training rows have a, b"),
}


def run(module: DataModule) -> dict[int, dict[str, Tensor]]:
    """Row -> its masks and targets, over all splits."""
    seen = {}
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        for batch in loader:
            for k, row in enumerate(batch.row.tolist()):
                seen[row] = {n: m[k].any() for n, m in batch.masks.items()} | {"y": batch.targets["target"][k]}
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_missing(make: Callable[..., DataModule], tmp_path: Path, workers: int) -> None:
    module = make("a.csv", write_media(tmp_path), on_error="missing", num_workers=workers, **MEDIA)
    seen = run(module)
    assert set(seen) == {0, 1, 2, 3, 4, 5, 7, 8, 10}  # 6 has no id of its own, 9 no split
    for row, part in ((1, "vision"), (2, "vision"), (3, "audio"), (4, "audio"), (5, "text")):
        assert not seen[row][part]
        assert sum(bool(seen[row][n]) for n in ("text", "vision", "audio")) == 2
    assert [int(seen[row]["y"]) for row in (0, 1, 8)] == [0, 1, IGNORE]
    check_errors(module, tmp_path, WRONG)


def test_a_row_without_any_input_is_unlabelled_and_counted(make: Callable[..., DataModule]) -> None:
    text = "a,b,target,split\nx,y,one,train\n,,one,train\n,y,two,train\nx,,one,val\n,,two,test\n"
    columns = {name: {"column": name, "modality": "text"} for name in ("a", "b")}
    module = make("a.csv", text, in_full=columns, target="target", num_workers=0)
    seen = run(module)
    assert {row: int(one["y"]) for row, one in seen.items()} == {0: 0, 1: IGNORE, 2: 1, 3: 0, 4: IGNORE}
    assert sorted(module.notes) == [(1, "no_input"), (4, "no_input")]
    assert not module.faults


def test_a_row_whose_only_input_is_taken_away_counts(make: Callable[..., DataModule]) -> None:
    text = "a,b,target,split\nx,y,one,train\n,,one,train\n,y,two,train\nx,,one,val\ny,y,two,test\n"
    columns = {name: {"column": name, "modality": "text"} for name in ("a", "b")}
    module = make("a.csv", text, in_full=columns, target="target", num_workers=0)
    raw, own = module.table.inputs["b"], module.transforms["b"]
    module.stored = {"b": DroppedInput(CorruptedTransform(own, raw, "text", lambda x, **_: x, 0.0, 0), range(5))}
    seen = run(module)
    assert {row: int(one["y"]) for row, one in seen.items()} == {0: 0, 1: IGNORE, 2: 1, 3: 0, 4: 1}
    assert not any(one["b"] for one in seen.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_drop(make: Callable[..., DataModule], tmp_path: Path, workers: int) -> None:
    text = (
        write_media(tmp_path)
        .replace("label,split", "label,split")
        .replace("z,val", "z,val\nj1,w,m/0.png,m/0.wav,a,val")
    )
    module = make("a.csv", text, on_error="drop", num_workers=workers, **MEDIA)
    seen = run(module)
    filler = seen.pop(-1)
    assert not any(filler[n] for n in MEDIA if n != "target")
    assert filler["y"] == IGNORE
    assert set(seen) == {0, 7, 9, 11}
    assert all(seen[row][n] for row in seen for n in ("text", "vision", "audio"))
    check_errors(module, tmp_path, WRONG)


def check_errors(module: DataModule, folder: Path, wrong: dict[int, tuple[str, str]]) -> None:
    import csv

    module.write_errors(folder / "errors.csv")
    with (folder / "errors.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {int(line["row"]) for line in lines} == set(wrong)
    assert len(lines) == len(wrong)
    for line in lines:
        column, message = wrong[int(line["row"])]
        assert line["column"] == column
        assert message in line["error"]
        assert line["id"] == module.table.ids[int(line["row"])]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(("row", "workers"), [(2, 0), (3, 0), (4, 0), (2, 2)])  # starting workers is slow
def test_raise_from_a_worker(make: Callable[..., DataModule], tmp_path: Path, row: int, workers: int) -> None:
    keep = write_media(tmp_path).splitlines()
    text = "\n".join(keep[k] for k in (0, 1, row + 1, 8)) + "\nv,w,m/0.png,m/0.wav,a,val\n"
    module = make("a.csv", text, num_workers=workers, **MEDIA)
    column, message = WRONG[row]
    with pytest.raises(ValueError, match="Mend") as caught:
        list(module.train_dataloader())
    said = str(caught.value)
    assert said.startswith(f"a.csv: row 1 (id 'i{row}'), column '{column}': ")
    assert message in said
    assert "Mend the row, or set datamodule.on_error=drop" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("row", [1, 6, 8])
def test_raise_at_once(make: Callable[..., DataModule], tmp_path: Path, row: int) -> None:
    """What can be seen without decoding is told before anything starts."""
    keep = write_media(tmp_path).splitlines()
    text = "\n".join(keep[k] for k in (0, 1, 8, row + 1)) + "\n"
    column, message = WRONG[row]
    with pytest.raises(
        ValueError, match=rf"a.csv: row 2 \(id '{'i0' if row == 6 else f'i{row}'}'\), column '{column}'"
    ) as caught:
        make("a.csv", text, **MEDIA)
    assert message.split(";")[0] in str(caught.value)


def test_more_rows_are_counted(make: Callable[..., DataModule]) -> None:
    rows = "vision,target\n" + "".join(f"no{k}.png,a\n" for k in range(13))
    with pytest.raises(ValueError, match=r"row 0 .*no0.png \(the first of 13 .*\) \(12 more rows are wrong\). Mend"):
        make("a.csv", rows, vision="vision")


class Fails(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of paint")


@pytest.mark.parametrize("policy", ["raise", "drop", "missing"])
def test_an_augmentation_is_no_fault_of_a_row(make: Callable[..., DataModule], tmp_path: Path, policy: str) -> None:
    """Dropping every row that a broken augmentation meets would train on nothing."""
    text = write_media(tmp_path).splitlines()
    module = make(
        "a.csv",
        "\n".join([text[0], text[1], text[8], "v,w,m/0.png,m/0.wav,a,val"]),
        on_error=policy,
        **MEDIA,
    )
    module.use({"vision": ImageTransform((4, 4), 3, augment=[Fails()])})
    with pytest.raises(ValueError, match=r"augmentation Fails .*out of paint.*Change datamodule.transforms") as caught:
        list(module.train_dataloader())
    assert "Traceback" not in str(caught.value)


def test_cut_rows_are_counted(make: Callable[..., DataModule]) -> None:
    module = make("a.csv", TEXTS, text="text", target="target")
    module.use({"text": TextTransform("bytes", 5)})
    list(module.train_dataloader())
    assert module.notes == {(row, "truncated/text") for row in range(10, 21)}  # word10 and longer
    module.notes.clear()
    module.use({"text": TextTransform("bytes", 5, "window", 0.0)})
    batches = list(module.train_dataloader())
    assert module.notes == {(row, "windowed/text") for row in range(10, 21)}
    assert Counter(torch.cat([b.row for b in batches]).tolist()) == {row: 1 + (row >= 10) for row in range(21)}
    module.use({"text": TextTransform("bytes", 5, "error")})
    with pytest.raises(ValueError, match="column 'text': 6 bytes are too long, at most 5"):
        list(module.loader("train"))


@pytest.mark.parametrize("policy", ["raise", "drop", "missing"])
def test_a_target_that_was_cut_off_is_refused_in_training_and_measured_in_a_test(
    make: Callable[..., DataModule], policy: str, printed_log: pytest.CaptureFixture[str]
) -> None:
    """A limit on what is read may not take the rows out of a score that it makes harder."""
    lines = "t,a,s\nthe cat sees,cat,train\nthe cat sees,sees,train\nthe cat sees,sees,test\nthe cat sees,dog,val"
    names = {"text": "t", "target": "a", "split_column": "s"}
    module = make("a.csv", lines, readers={"target": SpanTarget("text")}, on_error=policy, **names)
    module.use({"text": TextTransform("bytes", 8, return_offsets=True)})
    (batch,) = module.loader("test")
    assert batch.row.tolist() == [2] and not labelled(batch.targets["target"]).any()
    assert not module.faults and module.is_labelled("target", 2)
    assert module.notes == {(2, "truncated/text"), (2, "target_truncated/target")}
    assert "row 2" in printed_log.readouterr().out
    if policy == "raise":
        with pytest.raises(ValueError, match=r"row 1 \(id '1'\), column 'a': the answer 'sees' is nowhere read as"):
            list(module.loader("train", train=True))
        return
    (batch,) = module.loader("train", train=True)
    assert sorted(batch.row.tolist()) == ([-1, 0] if policy == "drop" else [0, 1])
    list(module.loader("val"))
    assert not module.is_labelled("target", 3)  # its answer is not in the text at all


def test_absent_cells_and_inputs(make: Callable[..., DataModule]) -> None:
    rows = "text,target,split\nx,a,train\n,b,train\nz,,train\nv,a,val\n"
    module = make("a.csv", rows, text="text", target="target")
    module.use({"text": TextTransform("bytes"), "vision": ImageTransform((4, 4), 1)})
    (batch,) = module.loader("train")
    assert batch.masks["text"].tolist() == [[True], [False], [True]]
    assert not batch.masks["vision"].any()
    assert batch.targets["target"].tolist() == [0, IGNORE, IGNORE]  # of a row without any input nothing is asked
    assert not module.faults


def test_filler_rows(make: Callable[..., DataModule]) -> None:
    lines = "text,target,score,split\nx,a,1,train\nv,a,2,val\n"
    columns = {"target": "target", "score": "score"}
    table = make("a.csv", lines, text="text", readers={"score": RegressionTarget()}, targets=columns).table
    read = Rows(table, {"text": TextTransform("bytes")}, "raise", True)[Draw(-1, 0)]
    assert read.sample.row == -1
    assert read.sample.inputs == {"text": None}
    assert read.sample.targets["target"] == IGNORE
    assert read.sample.targets["score"].isnan()


def test_rows_travel_to_spawned_workers(make: Callable[..., DataModule]) -> None:
    dataset = make("a.csv", TEXTS, text="text", target="target").loader("train").dataset
    again = pickle.loads(pickle.dumps(dataset))
    one, two = (d[Draw(3, 0)].sample.inputs["text"].windows[0] for d in (dataset, again))
    assert one.tolist() == two.tolist()


@pytest.mark.parametrize(
    "tokens", [TextTransform("bytes", pad_multiple=64), TextTransform("bytes", 128, overflow="window")]
)
def test_a_budget_holds_padding_and_windows(make: Callable[..., DataModule], tokens: TextTransform) -> None:
    lengths = np.random.default_rng(0).integers(60, 140, 200)
    rows = "".join(f"{'a' * n},a,train\n" for n in lengths.tolist())
    module = make("a.csv", "text,target,split\n" + rows, text="text", batch_size=64, max_batch_length={"text": 1024})
    module.use({"text": tokens})
    sizes = [batch.inputs["text"].numel() for batch in module.train_dataloader()]
    assert 512 < max(sizes) <= 1024


def test_no_budget(make: Callable[..., DataModule]) -> None:
    one, other = (make("a.csv", TEXTS, text="text", max_batch_length=budget) for budget in ({"text": None}, None))
    assert one.batching == other.batching


def test_wrong_settings(make: Callable[..., DataModule]) -> None:
    with pytest.raises(ValueError, match=r"datamodule.on_error: got 'skip', wanted one of raise, drop, missing"):
        make("a.csv", TEXTS, text="text", on_error="skip")
    with pytest.raises(ValueError, match=r"datamodule.inputs: got 'vision', wanted some of text"):
        make("a.csv", TEXTS, text="text", inputs=["vision"])
    with pytest.raises(ValueError, match=r"datamodule.max_batch_length: got 4096, wanted an input's name with its own"):
        make("a.csv", TEXTS, text="text", max_batch_length=4096)


def test_balanced_classes(make: Callable[..., DataModule], tmp_path: Path) -> None:
    lines = [f"{i},{'rare' if i % 10 == 0 else 'common'},{i % 3},train" for i in range(60)]
    text = "\n".join(["text,kind,size,split", *lines, "x,rare,1,val", "y,,2,train"])
    built = make("rows.csv", text, text="text", targets={"kind": "kind", "size": "size"}, balance_by="kind")
    seen = Counter(row for epoch in range(2) for row in drawn(built, epoch))
    kinds: Counter[str | None] = Counter()
    for row, count in seen.items():
        kinds[built.truth("kind", row)] += count
    assert kinds == {"rare": 60, "common": 60, None: 2}
    assert {seen[row] for row in range(0, 60, 10)} == {10}  # 6 rows, 60 draws
    assert sorted({seen[row] for row in range(60) if row % 10}) == [1, 2]  # 54 rows, 60 draws
    assert len(list(built.val_dataloader())) == 1
    with pytest.raises(ValueError, match=r"balance_by: got 'knid', the data has kind, size; did you mean 'kind'"):
        make("rows.csv", text, text="text", targets={"kind": "kind", "size": "size"}, balance_by="knid")


def test_rows_of_several_labels_are_drawn_by_the_rarest(make: Callable[..., DataModule]) -> None:
    labels = ["common"] * 40 + ["common|rare"] * 4 + ["odd|common"] * 8 + ["|"] * 4
    text = "\n".join(["a,b,split", *(f"text {i},{label},train" for i, label in enumerate(labels)), "x,odd,val"])
    built = make("rows.csv", text, text="a", target="b", readers={"target": MultilabelTarget()}, balance_by="target")
    assert Counter(labels[row] for row in drawn(built, 0)) == dict.fromkeys(set(labels), 14)


def test_only_classes_are_balanced(make: Callable[..., DataModule]) -> None:
    with pytest.raises(
        ValueError, match=r"rows of 'target' have no classes: it is a target of kind number, wanted one"
    ):
        make(
            "rows.csv",
            "a,b\n" + "x,1\n" * 20,
            text="a",
            target="b",
            readers={"target": RegressionTarget()},
            balance_by="target",
        )


def drawn(built: DataModule, epoch: int) -> list[int]:
    loader = built.train_dataloader()
    loader.order.set_epoch(epoch)
    return [row for batch in loader for row in batch.row.tolist()]


def test_what_a_transform_notes_is_counted(make: Callable[..., DataModule], tmp_path: Path) -> None:
    """Rows whose colour was dropped, and sounds that were averaged, are named and counted."""
    for k, colour in enumerate(((9, 9, 9), (220, 30, 30))):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{k}.png")
        soundfile.write(tmp_path / f"{k}.wav", np.full((90, 1 + k), 0.1), 8000)
    text = "p,s,split\n" + "".join(f"{k % 2}.png,{k % 2}.wav,train\n" for k in range(6))
    module = make("a.csv", text, vision="p", audio="s", split={"val": 0, "test": 0, "seed": 0}, use=False)
    module.use({"vision": ImageTransform((4, 4), 1), "audio": AudioTransform(8000)})
    _ = list(module.loader("train"))
    assert module.notes == {(row, what) for row in (1, 3, 5) for what in ("colour_dropped/vision", "mixed_down/audio")}
    assert count_faults(module) == {"data/faulty_rows": 0, "data/colour_dropped/vision": 3, "data/mixed_down/audio": 3}
    assert data_notes(count_faults(module)) == [
        "vision: 3 rows have colours that were read as grey; set datamodule.transforms.*.channels=3 to keep them",
        "audio: 3 rows have several channels, which were averaged",
    ]
    assert notes_of(module.notes, "vision") == [(row, "colour_dropped") for row in (1, 3, 5)]


def test_one_data_object_serves_several_models(make: Callable[..., DataModule]) -> None:
    data = make("a.csv", TEXTS, text="text", target="target")
    one, two = data.bind({"text": TextTransform("bytes", max_length=3)}), data.bind({"text": Doubled("bytes")})
    assert [next(iter(x.train_dataloader())).inputs["text"].shape[1] for x in (one, two, data)] == [3, 12, 6]
    assert one.notes and not two.notes and not data.notes
    other = data.bind({"text": TextTransform("bytes"), "vision": ImageTransform((4, 4), 3)})
    assert not other.batch([0]).masks["vision"].any() and "vision" not in data.inputs


def test_data_bound_to_a_trained_model_has_its_classes(make: Callable[..., DataModule]) -> None:
    data = make("a.csv", TEXTS, text="text", target="target")
    known = TargetData(kind="class", classes=("z", "b", "a"), facts={"counts": [1, 1, 1]})
    spec = DataSpec(inputs=data.spec.inputs, targets={"target": known})
    bound = data.bind(data.transforms, spec)
    assert bound.spec.targets["target"].classes == ("z", "b", "a")
    assert bound.targets["target"][:2].tolist() == [2, 1] and data.targets["target"][:2].tolist() == [0, 1]
    assert not data.bind(data.transforms, DataSpec(inputs=data.spec.inputs, targets={})).targets


def test_a_data_module_is_a_data_source(make: Callable[..., DataModule]) -> None:
    data: DataSource = make("a.csv", TEXTS, text="text", target="target")
    check_data_source(data)
    assert data.row_name(21) == "a.csv: row 21 (id '21')" and data.column_of("target", 0) == "target"
    assert (data.splits == "val").sum() == 1 and data.source == "a.csv"
    assert next(data.input_digests("text")) == b"7:'word0'"


@pytest.mark.parametrize("path", ["new.csv", Path("new.csv")])
def test_a_path_is_no_data_source(path: str | Path) -> None:
    with pytest.raises(ValueError, match=r'^data: got the path .new.csv., .* write mm.Manifest\("new.csv", \.\.\.\)$'):
        check_data_source(path)


@pytest.mark.parametrize("table", [[{"text": "a"}], pyarrow.table({"text": ["a"]})], ids=["list", "Table"])
def test_a_table_is_no_data_source(table: object, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.id
    with pytest.raises(ValueError, match=rf"^data: got a {kind}, which is a table, .* write mm.Manifest\(data, "):
        check_data_source(table)


def test_what_a_data_source_lacks_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^data: object lacks transforms, stored, .*wanted a mm.data_source.DataSource"
    ):
        check_data_source(object())
    with pytest.raises(ValueError, match=r"^data: LightningDataModule lacks spec, source, .*docs/howto/own_dataset.md"):
        check_data_source(LightningDataModule)
    check_data_source(DataModule)
    with pytest.raises(ValueError, match="got loaders without a data module"):
        data_source(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
