"""Names from the data come through every output as data: no markup, no control character and no command is obeyed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt
from omegaconf import OmegaConf
from torch import nn

from mm.assembly.provenance import Provenance
from mm.assembly.resuming import next_commands
from mm.cli import _render, calibrate
from mm.messages import command, markdown, plain, quote
from mm.retrieval import Hit
from mm.runs.card import model_card
from mm.runs.compare import RunResult, rank_settings

NAMES = [
    "[bold red]",
    "[/]",
    "a[/b]c",
    "<script>alert(1)</script>",
    "'; rm -rf ~ #",
    "two\nlines",
    "\x1b[2J\x1b[31m",
    "\r\x07\x9b2K",
    "a|b`c`*d*_e_",
    "![x](http://localhost/)",
    ":red_heart:",
    "&lt;",
    "back\\slash",
    "\u202egpj.exe",
    "\udcff",
    "$(touch x)`touch y`",
]


def words(line: str) -> list[str]:
    """What bash makes of a command."""
    script = f"printf '%s\\0' {line}"
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    return out.decode("utf-8", "surrogateescape").split("\0")[:-1]


def cells(out: str) -> set[str]:
    return {cell.strip() for line in out.splitlines() for cell in line.replace("┃", "│").split("│")}


def rendered(text: str) -> list[str]:
    """The texts of a Markdown document, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    kinds = {child.type for token in tokens for child in token.children or () if child.content != "mm"}
    assert kinds <= {"text", "text_special", "softbreak"}, kinds
    assert not any(token.type.startswith("html") for token in tokens)
    return inline


@pytest.mark.parametrize("name", NAMES)
def test_tables_show_names_as_they_are(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = plain(name)
    assert shown.isascii()
    assert shown.isprintable()

    path = tmp_path / f"x{name}"
    results = {f"test[{name}]/{name.replace('/', '.')}": 0.5, "test/accuracy": 0.25, f"data/truncated/{name}": 2}
    _render.print_results(results, ["target"], Path("runs/r"), {name: path}, [command("mm", name)])
    out = capsys.readouterr().out
    assert f"test[{shown}]" in cells(out) or "/" in name
    assert plain(name.replace("/", ".")) in cells(out) or "/" in name
    assert f"{shown}: of 2 rows a part was cut" in out
    assert f"{shown}  {plain(path.name)}" in out or "/" in name
    assert words(out.splitlines()[-2]) == ["mm", name]

    _render.print_results({f"test/{name}/loss": 0.5, "test/b/loss": 1.0}, [name, "b"], Path("r"), {}, [])
    assert shown in cells(capsys.readouterr().out) or "/" in name
    runs = [RunResult(f"{name}{i}", name, (f"a={name}{i}", name), {name: float(i)}) for i in range(2)]
    _render.print_ranking(rank_settings(runs, [name]))
    out = capsys.readouterr().out
    assert {shown, f"a={shown}0", f"1: {shown}1"} <= cells(out)
    assert f"all: {shown}" in out
    _render.print_hits([Hit(name, name, 0.5, name)])
    assert shown in cells(capsys.readouterr().out)
    curves = {(name, name, name, "noise"): [1.0, 0.5], ("b", "mae", "c", "noise"): [1.0, 0.5]}
    report = SimpleNamespace(curves=curves, metrics={}, num_rows=3)
    _render.print_curves(report, path)
    out = capsys.readouterr().out
    assert {shown, f"{shown}/{shown}"} <= cells(out)
    calibrate.print_table({name: {name: 0.5}})
    assert {shown, plain(name.replace("_", " ")).strip()} <= cells(capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES)
def test_commands_can_be_pasted(name, tmp_path):
    assert words(quote(name)) == [name]
    assert plain(command("mm", name)) == command("mm", name)
    provenance = Provenance(choices={"datamodule": name})
    folder = tmp_path / name
    cfg = OmegaConf.create(
        {"paths": {"outputs": str(tmp_path)}, "trainer": {"max_epochs": 1}, "model": {"heads": {"a": 1}}}
    )
    use, predict, resume = (words(line) for line in next_commands(cfg, folder, provenance, measurable=True))
    assert use == ["mm", "evaluate", f"checkpoint={folder / 'model'}", f"datamodule={name}", "..."]
    assert predict[2] == f"checkpoint={folder / 'model'}"
    assert resume[2] == f"run={Path(name)}"
    assert resume[-1] == "trainer.max_epochs=2"
    assert (
        words(next_commands(cfg, folder, provenance, measurable=False)[0])[2] == f"model.init_from={folder / 'model'}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_card_shows_names_as_they_are(name):
    shown = plain(name)
    model = SimpleNamespace(inputs=[name], heads={name: None}, parameters=nn.Linear(2, 2).parameters)
    metric = name.replace("/", ".")
    card = model_card(["mm", name], name, {"train": 1}, {f"test/{metric}": 0.5}, model)
    found = rendered(card)
    assert f"{shown} from {shown}" in found
    assert f"test/{plain(metric)}" in found
    assert f"Data: {shown}; rows: train 1." in found
    assert words(card.split("Command:\n\n")[1].splitlines()[0]) == ["mm", name]
    assert rendered(f"Calibration: {markdown(name)}") == [f"Calibration: {shown}"]


def test_messages_keep_their_lines_and_show_the_rest(capsys):
    from mm.cli import fail

    assert fail("a\n\tb\x1b[2J\udcff") == 2
    assert capsys.readouterr().err == "mm: a\n\tb\\x1b[2J\\udcff\n"
    assert plain("Größe 大小 \u200d") == "Größe 大小 \u200d"
