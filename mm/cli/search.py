"""Find the rows nearest to a text, an image, a sound or cells of a table.

mm search checkpoint=DIR index=RUN query="smiling cat" [k=10] [among=vision,audio] [input=NAME] [outputs=outputs]
[allow=my_pkg]: index is a run of mm embed, or the embeddings.parquet that it wrote; query a text, the path of a file
whose suffix tells what it is, else `input` does, or a table's cells as JSON, {"age": 41}; among, the inputs of which
items are wanted.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._import_path import add_working_directory
from mm.messages import cell, near

if TYPE_CHECKING:
    from mm.retrieval import Hit

DEFAULTS = {
    "checkpoint": "",
    "index": "",
    "query": "",
    "k": "10",
    "among": "",
    "input": "",
    "outputs": "outputs",
    "allow": "",
}
USAGE = 'usage: mm search checkpoint=DIR index=RUN query="smiling cat" [k=10] [among=vision] [input=NAME]'


def main(argv: list[str]) -> None:
    given = parse_arguments(argv)
    path = find_file(given["index"], given["outputs"])
    add_working_directory()

    from mm import checkpoint
    from mm.retrieval import EmbeddingIndex, search

    index = EmbeddingIndex.open(path)
    among = split_names(given["among"]) or index.inputs
    for name in among:
        if name not in index.inputs:
            raise ValueError(f"among={name}: {path} has {', '.join(index.inputs)}{near(name, index.inputs)}")
    model = checkpoint.load(given["checkpoint"], split_names(given["allow"]))
    report = search(model, index, given["query"], int(given["k"]), among, given["input"])
    if among != [report.query_input] and not report.aligned:
        print(
            "this model has not learnt to bring its inputs together (task=contrastive): what is near in another than "
            f"'{report.query_input}' may mean nothing",
            file=sys.stderr,
        )
    print_hits(report.hits)


def parse_arguments(argv: list[str]) -> dict[str, str]:
    """Parse `key=value` arguments.

    Raises:
        ValueError: If a key is unknown, or one that must be set is not.
    """
    given = {key: value for key, _, value in (a.lstrip("-").partition("=") for a in argv)}
    for key in given:
        if key not in DEFAULTS:
            raise ValueError(f"nothing reads '{key}'{near(key, DEFAULTS)}; {USAGE}")
    given = DEFAULTS | given
    lacking = [key for key in ("checkpoint", "index", "query") if not given[key]]
    if lacking:
        raise ValueError(f"{lacking[0]}= must be set; {USAGE}")
    if not given["k"].isdecimal() or not int(given["k"]):
        raise ValueError(f"k: got '{given['k']}', wanted a number from 1")
    return given


def split_names(value: str) -> list[str]:
    """Split `a,b` or `[a,b]`."""
    return [name for name in value.strip("[]").replace(" ", "").split(",") if name]


def find_file(index: str, outputs: str) -> Path:
    """Find the file of embeddings of a run or a path.

    Raises:
        ValueError: If there is none.
    """
    for path in (Path(index), Path(outputs) / index):
        file = path / "embeddings.parquet" if path.is_dir() else path
        if file.is_file():
            return file
    raise ValueError(f"index={index}: no such file, and no run of mm embed in {Path(outputs) / index}")


def print_hits(hits: "list[Hit]") -> None:
    """Print a table of items, the nearest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table("rank", "id", "input", "similarity", "source")
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), cell(hit.id), cell(hit.input), f"{hit.similarity:.4f}", cell(hit.source or ""))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
