"""Every command and every Python block of the README and the manual runs on tiny data, or says why it does not."""

import json
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import TINY
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from mm.assembly.registry import open_registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]
GENERATED = ("reference/config", "reference/verbs", "reference/python", "results/generated")
PAGES = [p for p in PAGES if not any(f"docs/{g}/" in str(p) for g in GENERATED)]
FENCE = re.compile(
    r"(?P<before>(?:[^\n]*\n){0,2})(?P<ticks>```+)(?P<language>\w*)[^\n]*\n(?P<code>.*?)\n(?P=ticks)", re.S
)
RUN = ("bash", "sh", "console", "python")
MARK = re.compile(r"<!-- test: (skip|composed|full): (\S.*?) -->")
FILE = re.compile(r"`([\w./]+\.(?:py|yaml|csv))`:\s*$")


class Block(NamedTuple):
    """A fenced block: its language, its text, the file that it is, and whether it is run, composed or skipped."""

    language: str
    code: str
    file: str | None
    mode: str


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that must run, and the files that it shows."""
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        before = match["before"].strip().splitlines()[-1:] or [""]
        mark, file = MARK.search(before[0]), FILE.search(before[0])
        if match["language"] in RUN or file:
            mode = mark[1] if mark else "run"
            found.append(Block(match["language"], match["code"], file[1] if file else None, mode))
    return found


def commands_of(code: str) -> list[list[str]]:
    """Return the words of each command, continued lines joined, comments left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def needed(page: Path) -> list[Path]:
    """Return the pages whose files a page needs."""
    names = re.findall(r"<!-- test: needs (\S+) -->", page.read_text(encoding="utf-8"))
    return [DOCS / name for name in names]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def composable() -> Iterator[tuple[str, list[str]]]:
    """Yield every `mm` command that is not run, but whose config is composed."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.mode != "composed" or block.language not in ("bash", "sh", "console"):
                continue
            for words in commands_of(block.code):
                if words[0] == "mm" and len(words) > 1 and (ROOT / f"conf/{words[1]}.yaml").exists():
                    yield name_of(page), words[1:]


COMMANDS = list(composable())
RUNNING = [page for page in PAGES if any(b.mode in ("run", "full") for b in blocks_of(page))]


def first_choice(word: str) -> str:
    """Return an override with the first value of a sweep."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    return f"{word.split('=')[0]}={next(iter(override.sweep_string_iterator()))}"


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{p}:{' '.join(w)[:60]}" for p, w in COMMANDS])
def test_command_names_keys_and_options_that_exist(page, words):
    from mm.cli._typed import as_meant

    sweep = "-m" in words
    overrides = [as_meant(word, sweep) for word in words[1:] if word != "-m" and not word.startswith("--")]
    overrides = [first_choice(word) if sweep else word for word in overrides]
    launcher = [w for w in overrides if w.startswith(("hydra/launcher", "hydra.launcher", "+hydra.launcher"))]
    with open_registry():
        compose(words[0], [word for word in overrides if word not in launcher])
    chosen = [w.split("=")[1] for w in launcher if w.startswith("hydra/launcher=")]
    for word in launcher if chosen else ():
        key = word.split("=")[0].removeprefix("hydra.launcher.")
        text = (ROOT / f"conf/hydra/launcher/{chosen[0]}.yaml").read_text(encoding="utf-8")
        assert "/" in key or "+" in key or re.search(rf"^{key}:", text, re.M), word


def tiny(args: list[str]) -> list[str]:
    """Return the same command on two batches of a small model."""
    if args[0] in ("evaluate", "embed", "calibrate", "predict"):
        return [*args, "datamodule.num_workers=0"]
    if args[0] != "train":
        return args
    kept = [a for a in args if "max_epochs" not in a]
    if "resume=true" in args:  # what it resumes was tiny
        return [*kept, "trainer.max_epochs=2"]
    typed = " ".join(args)
    chosen = [kind for kind in ("text", "vision", "audio") if f"model/encoders/{kind}=" in typed]
    replaced = ("text", "vision", "audio") if "experiment=" in typed else chosen
    small = [a for a in TINY if not any(f"encoders.{kind}" in a for kind in replaced)]
    given = re.search(r"datamodule=(text|vision|audio|shards|colours)", typed)
    if given:  # an override of an encoder that the data lacks is refused
        modality = {"shards": "vision", "colours": "text"}.get(given[1], given[1])
        small = [a for a in small if "encoders." not in a or f"encoders.{modality}" in a]
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_test_batches=1"]
    return [*kept, *small, *limits]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows, and run its scripts that make data."""
    for block in blocks_of(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code + "\n", encoding="utf-8")
            if block.file.startswith("make_"):
                runpy.run_path(str(folder / block.file))


def run_page(page: Path, folder: Path, mm: Callable) -> int:
    """Run the blocks of a page in their order; return how many commands and Python blocks ran."""
    ran, namespace = 0, {"__name__": "__main__"}
    write_files(page, folder)
    for block in blocks_of(page):
        if block.mode not in ("run", "full") or block.file:
            continue
        if block.language == "python":
            exec(compile(block.code, name_of(page), "exec"), namespace)
            ran += 1
            continue
        for words in commands_of(block.code):
            if words[0] == "python":
                assert words[1].startswith("make_") and (folder / words[1]).exists(), words[1]
            elif "MM_DATA" not in os.environ and any(word.startswith("experiment=") for word in words):
                continue
            elif words[0] == "mm":
                typed = words[1:]
                done = mm(*(typed if block.mode == "full" or not typed else tiny(typed)))
                assert done.status == 0, f"{name_of(page)}: {shlex.join(words)}\n{done.out[-2000:]}{done.err[-3000:]}"
            else:
                assert words[0].startswith("./scripts/"), f"{name_of(page)}: nothing runs {shlex.join(words)}"
                assert os.access(ROOT / words[0], os.X_OK)
                continue
            ran += 1
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=map(name_of, RUNNING))
def test_page_runs(page, mm, manifest, tmp_path, monkeypatch):
    if name_of(page) == "README.md":  # its CSV is the reader's
        shutil.copytree(manifest.parent, tmp_path, dirs_exist_ok=True)
        for name in ("my.csv", "test.csv", "new.csv"):
            shutil.copy(tmp_path / "rows.csv", tmp_path / name)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        for other in needed(page):
            write_files(other, tmp_path)
        assert run_page(page, tmp_path, mm) > 0
    finally:
        for module in set(sys.modules) - before:
            if module.split(".")[0] == "my_pkg":
                del sys.modules[module]


def test_every_block_that_does_not_run_says_why():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        marks = re.findall(r"<!-- test: .*? -->", text)
        known = [m for m in marks if MARK.fullmatch(m) or m.startswith("<!-- test: needs ")]
        assert marks == known, f"{name_of(page)}: {set(marks) - set(known)}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_llms_txt_names_pages_that_exist():
    for target in re.findall(r"\]\((\S+?)\.html\)", (DOCS / "llms.txt").read_text(encoding="utf-8")):
        assert (DOCS / f"{target}.md").exists(), target


def test_tree_of_the_contributing_page_is_true():
    text = (DOCS / "contributing.md").read_text(encoding="utf-8")
    listed = re.search(r"## The tree\n\n```text\n(.*?)```", text, re.S)[1]
    for line in listed.splitlines():
        assert (ROOT / line.split()[0]).exists(), line
    for room in re.findall(r"^\| `([\w./]+)` \|", text, re.M):
        assert (ROOT / "mm" / room).exists(), room


@pytest.fixture(scope="module")
def extensions():
    sys.path.insert(0, str(DOCS / "_ext"))
    yield
    sys.path.remove(str(DOCS / "_ext"))


def test_reference_describes_every_option_and_every_verb(extensions):
    import config_pages

    from mm.cli import verbs

    pages = config_pages.pages()
    assert {f"reference/verbs/{verb}.md" for verb in verbs()} <= set(pages)
    text = "\n".join(pages.values())
    options = [p.relative_to(ROOT / "conf").with_suffix("") for p in (ROOT / "conf").glob("*/**/*.yaml")]
    missing = [str(o) for o in options if f"`{o.parent}={o.name}`" not in text and f"`{o}`" not in text]
    assert [m for m in missing if m != "hydra/default"] == []


def test_results_state_where_they_are_from(extensions, tmp_path):
    import results_pages

    assert len(results_pages.pages(DOCS / "results")) >= 10
    table = {"title": "a", "date": "b", "commit": "c", "machine": "d", "seeds": "e", "columns": ["x"], "rows": [["1"]]}
    (tmp_path / "a.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ValueError, match="got no command"):
        results_pages.pages(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(table | {"command": "f", "rows": [["1", "2"]]}), encoding="utf-8")
    with pytest.raises(ValueError, match="2 cells, wanted 1"):
        results_pages.pages(tmp_path)
