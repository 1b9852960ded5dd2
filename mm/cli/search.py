"""Find the rows nearest to a text, an image, a sound or cells of a table.

mm search checkpoint=DIR index=RUN query="smiling cat" [k=10] [among=vision,audio] [input=NAME] [outputs=outputs]
[allow=my_pkg]: index is a run of mm embed, or the embeddings.parquet that it wrote; query a text, the path of a file
whose suffix tells what it is, else `input` does, or a table's cells as JSON, {"age": 41}; among, the inputs of which
items are wanted.
"""

import sys
from pathlib import Path

from mm.cli._import_path import add_working_directory
from mm.cli._verb import parse_words, split_names
from mm.messages import near

KEYS = ("checkpoint", "index", "query", "k", "among", "input", "outputs", "allow")
DEFAULTS = dict.fromkeys(KEYS, "") | {"k": "10", "outputs": "outputs"}
USAGE = 'usage: mm search checkpoint=DIR index=RUN query="smiling cat" [k=10] [among=vision] [input=NAME]'


def main(argv: list[str]) -> None:
    given = parse_words(argv, DEFAULTS, USAGE, required=("checkpoint", "index", "query"))
    if not given["k"].isdecimal() or not int(given["k"]):
        raise ValueError(f"k: got '{given['k']}', wanted a number from 1")
    path = find_file(given["index"], given["outputs"])
    add_working_directory()

    from mm.cli._render import print_hits
    from mm.retrieval import EmbeddingIndex, search

    index = EmbeddingIndex.open(path)
    among = split_names(given["among"]) or index.inputs
    for name in among:
        if name not in index.inputs:
            raise ValueError(f"among={name}: {path} has {', '.join(index.inputs)}{near(name, index.inputs)}")
    allow = split_names(given["allow"])
    report = search(given["checkpoint"], index, given["query"], int(given["k"]), among, given["input"], allow)
    if among != [report.query_input] and not report.aligned:
        print(
            "this model has not learnt to bring its inputs together (task=contrastive): what is near in another than "
            f"'{report.query_input}' may mean nothing",
            file=sys.stderr,
        )
    print_hits(report.hits)


def find_file(index: str, outputs: str) -> Path:
    """Return the file of embeddings of a run or a path. Raises ValueError if there is none."""
    for path in (Path(index), Path(outputs) / index):
        file = path / "embeddings.parquet" if path.is_dir() else path
        if file.is_file():
            return file
    raise ValueError(f"index={index}: no such file, and no run of mm embed in {Path(outputs) / index}")
