"""Text from the data is data: what OmegaConf and Hydra would interpolate comes through as it was written."""

import pyarrow.parquet
import pytest
from omegaconf import OmegaConf

from mm.assembly.construct import build, escape, read_resolved
from mm.checkpoint import read_config, write_config
from mm.checkpoint.upgrade import FORMAT
from mm.runs.folder import read_overrides, write_overrides

HOSTILE = ["${name}", "${oc.env:HOME}", r"\${name}", r"a\\${b}", "$${x}", "${", "}${a}${b}", "yes", "1e3", "null", "\\"]
HOSTILE += [
    "on",
    "~",
    "",
    " ",
    "=",
    "<<",
    "*x",
    "&x",
    "# x",
    "- a",
    "{a}",
    "[/]",
    "!x",
    "'",
    '"',
    "2001-01-01",
    "12:30:00",
]
HOSTILE += [
    "0o17",
    "0x1F",
    "1_000",
    ".inf",
    "NaN",
    "a\nb",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\ufeff",
    "😀",
    "$10-$20",
    "a: b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_come_through_a_config(text):
    job = {"_target_": "mm.launch.job.Job", "folder": "x"}
    cfg = OmegaConf.create({"model": job | {"command": escape([text]), "label": escape(text)}})
    assert OmegaConf.to_container(cfg, resolve=True)["model"]["label"] == text
    built = build(cfg, "model")
    assert built.label == text and built.command == [text]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\x85"])  # OmegaConf writes a line break
def test_a_saved_config_is_read_as_it_was(tmp_path, text):
    cfg = OmegaConf.create({"classes": escape([text]), "lr": 1e-05})
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)
    assert read_resolved(tmp_path / "config.yaml") == {"classes": [text], "lr": 1e-05}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_directory_keeps_every_text(tmp_path, text):
    (tmp_path / "model.safetensors").touch()
    config = {"format": FORMAT, "requires": {}, "model": {"a": text}, "transforms": {}, "spec": {text: [text]}}
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("text", HOSTILE)
def test_the_words_of_a_command_are_read_as_they_were_typed(tmp_path, text):
    write_overrides(tmp_path, "train", [text, f"run={text}"])
    assert read_overrides(tmp_path) == [text, f"run={text}"]


def test_what_configs_read_as_missing_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="is called '\\?\\?\\?'"):
        escape({"classes": ["a", "???"]})
    (tmp_path / "config.yaml").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match="got a list, wanted the mapping"):
        read_resolved(tmp_path / "config.yaml")


def test_no_file_of_a_run_holds_the_value_of_a_variable(mm, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2hunter2")
    names = ["${oc.env:SECRET_TOKEN}", "${name}", "$10-$20", "[bold]", "a|b", "yes"]
    rows = "".join(f't {i},"{names[i % 6]}","{names[i % 2]}"\n' for i in range(60))
    (tmp_path / "a.csv").write_text("text,label,kind\n" + rows)
    run = mm(
        "train", "datamodule=manifest", "datamodule.path=a.csv", "datamodule.columns.text=text", "run=a",
        "datamodule.columns.target=label", "datamodule.columns.tabular=kind", "datamodule.num_workers=0",
        "model/encoders/text=hashed_ngrams", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=[csv,wandb]",
    )  # fmt: skip
    assert run.status == 0, run.err
    again = mm("train", "run=a", "resume=true", "trainer.max_epochs=2")
    assert again.status == 0, again.err
    import json

    assert json.loads((run.folder / "model/labels.json").read_text())["target"] == sorted(names)
    for file in run.folder.rglob("*"):
        assert not file.is_file() or b"hunter2hunter2" not in file.read_bytes(), file
    measured = mm("evaluate", "checkpoint=outputs/a/model", "datamodule=manifest", "datamodule.path=a.csv")
    assert measured.status == 0, measured.err
    assert mm("diagnose", "run=a").status == 0
    model = "checkpoint=outputs/a/model"
    told = mm("predict", model, "datamodule=manifest", "datamodule.path=a.csv", "run=p")
    assert told.status == 0, told.err
    found = pyarrow.parquet.read_table(told.folder / "predictions.parquet")
    assert set(found["target/prediction"].to_pylist()) <= set(names)
    assert mm("embed", model, "datamodule=manifest", "datamodule.path=a.csv", "run=e").status == 0
    assert mm("search", model, "index=e", "query=t 1").status == 0
    for file in (tmp_path / "outputs").rglob("*"):
        assert not file.is_file() or b"hunter2hunter2" not in file.read_bytes(), file
