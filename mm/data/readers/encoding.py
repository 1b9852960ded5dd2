"""Checks of text files before they are parsed: their encoding and the names of their columns."""

from pathlib import Path

from mm.cells import text_fault


def check_encoding(path: Path) -> None:
    """Raise ValueError where a file is UTF-16 or UTF-32, as some spreadsheets save, or begins with other binary data.

    Without a byte order mark, UTF-16 has NUL as every other byte of most texts.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    check_unpacked(head, path)


def check_unpacked(head: bytes, path: Path) -> None:
    """As `check_encoding`, of the first bytes of a text."""
    nul = f"{path}: byte {head.find(0) + 1} is NUL, as many others are; it is damaged, or no text file"
    even, odd = (head[first::2].count(0) * 2 > len(head[first::2]) for first in (0, 1))
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        name = "utf-32"
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = "utf-16"
    elif head.count(0) * 4 < max(len(head), 8):
        return
    elif even == odd:
        raise ValueError(nul)
    else:
        name = "utf-16be" if even else "utf-16le"
    fix = f"save it as UTF-8, for example iconv -f {name} -t utf-8 OLD > NEW"
    raise ValueError(f"{path}: is encoded as {name[:6].upper()}; {fix}")


def check_header(names: list[str], where: str) -> list[str]:
    """Errors: ValueError where a name is there twice or can't be read."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: the column '{twice}' is there twice; rename one")
    if any(text_fault(name) for name in names):
        fix = "save the file as UTF-8, for example iconv -f latin1 -t utf-8 OLD > NEW"
        raise ValueError(f"{where}: the column names are not valid UTF-8; {fix}")
    return names
