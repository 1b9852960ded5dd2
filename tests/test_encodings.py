"""Every text file is read and written in a named encoding: the locale's own may be ASCII."""

import ast
from pathlib import Path

import pytest


def is_python(file: Path) -> bool:
    """Whether it is a script of Python's."""
    return file.read_bytes().split(b"\n", 1)[0].endswith(b"python")


ROOT = Path(__file__).parents[1]
FILES = sorted(
    [*ROOT.glob("mm/**/*.py"), *ROOT.glob("datamodules/**/*.py"), *filter(is_python, ROOT.glob("scripts/*"))]
)
# Names whose `open` is not that of a text file: archives, images, sounds, descriptors.
OTHERS = {"Image", "tarfile", "zipfile", "wave", "gzip", "os", "soundfile", "webbrowser", "tar", "archive"}
OTHERS |= {"EmbeddingIndex"}


def unnamed(call: ast.Call) -> bool:
    """Whether a call opens a text file without naming its encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(word.arg == "encoding" for word in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) <= (name == "write_text")
    if name in ("TextIOWrapper", "NamedTemporaryFile", "TemporaryFile", "fdopen"):
        return name == "TextIOWrapper"
    if name != "open":
        return False
    if isinstance(call.func, ast.Attribute):
        if getattr(call.func.value, "id", "") in OTHERS:
            return False
        mode = call.args[0] if call.args else None
    else:
        mode = call.args[1] if len(call.args) > 1 else None
    mode = next((word.value for word in call.keywords if word.arg == "mode"), mode)
    return not (isinstance(mode, ast.Constant) and "b" in str(mode.value))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_open_names_its_encoding(file):
    stored = {"path.open()", "raw.open()"} if file.parent.parent.name == "transforms" else set()  # files in shards
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert {ast.unparse(call) for call in calls if unnamed(call)} <= stored


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text('x')", True),
        ("p.write_text('x', encoding='utf-8')", False),
        ("p.open()", True),
        ("p.open('w')", True),
        ("p.open('rb')", False),
        ("open(p)", True),
        ("open(p, mode='wb')", False),
        ("open(p, 'w', encoding='utf-8')", False),
        ("Image.open(p)", False),
    ],
)
def test_the_check_itself(code, expected):
    assert unnamed(ast.parse(code, mode="eval").body) is expected
