"""Find the rows nearest to a text, an image, a sound or cells of a table.

mm search checkpoint=DIR index=RUN query="smiling cat" [k=10] [among=vision,audio] [input=NAME] [outputs=outputs]
[allow=my_pkg]: index is a run of mm embed, or the embeddings.parquet that it wrote; query a text, the path of a file
whose suffix tells what it is, else `input` does, or a table's cells as JSON, {"age": 41}; among, the inputs of which
items are wanted.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._import_path import add_working_directory
from mm.messages import cell, listing, near

if TYPE_CHECKING:
    from mm.checkpoint import LoadedModel
    from mm.cli._index import Embeddings, Hit

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
    given = arguments(argv)
    path = find(given["index"], given["outputs"])
    add_working_directory()

    from mm import checkpoint
    from mm.batching import finish
    from mm.cli import _index

    embeddings = _index.Embeddings(path)
    among = listed(given["among"]) or embeddings.inputs
    for name in among:
        if name not in embeddings.inputs:
            raise ValueError(f"among={name}: {path} has {', '.join(embeddings.inputs)}{near(name, embeddings.inputs)}")
    loaded = checkpoint.load(given["checkpoint"], listed(given["allow"]))
    check_model(loaded, embeddings)
    name, raw = read_query(given["query"], given["input"], loaded)
    batch = finish(loaded.read([{name: raw}]), loaded.transforms)
    side = next(side for side, inputs in _index.sides(loaded.model).items() if name in inputs)
    if among != [side] and "retrieval" not in loaded.config["task"]:
        print(
            "this model has not learnt to bring its inputs together (task=contrastive): what is near in another than "
            f"'{side}' may mean nothing",
            file=sys.stderr,
        )
    vector = _index.embed(loaded.model, batch).vectors[f"{side}/{_index.ALL}"][0].numpy()
    show(embeddings.nearest(vector, int(given["k"]), among))


def arguments(argv: list[str]) -> dict[str, str]:
    """Errors: ValueError where a key is none, or one that must be set is not."""
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


def listed(value: str) -> list[str]:
    """`a,b` or `[a,b]`"""
    return [name for name in value.strip("[]").replace(" ", "").split(",") if name]


def find(index: str, outputs: str) -> Path:
    """The file of embeddings that is meant. Errors: ValueError where there is none."""
    for path in (Path(index), Path(outputs) / index):
        file = path / "embeddings.parquet" if path.is_dir() else path
        if file.is_file():
            return file
    raise ValueError(f"index={index}: no such file, and no run of mm embed in {Path(outputs) / index}")


def check_model(loaded: "LoadedModel", embeddings: "Embeddings") -> None:
    """Errors: ValueError where the embeddings are not this model's."""
    from mm.cli._index import fingerprint, sides

    width = next(iter(loaded.model.projections.values())).out_features
    if width != embeddings.width:
        raise ValueError(f"{loaded.path} gives {width} numbers, but {embeddings.path} holds {embeddings.width}")
    if fingerprint(loaded.path) != embeddings.model:
        raise ValueError(
            f"{embeddings.path} was written by another model, or with other weights, than {loaded.path}; write it anew "
            "with mm embed"
        )
    other = [name for name in embeddings.inputs if name not in sides(loaded.model)]
    if other:  # of a model with towers, by an mm that wrote vectors of inputs, which nothing had aligned
        raise ValueError(
            f"{embeddings.path} has vectors of {listing(other)}, the model gives those of "
            f"{listing(list(sides(loaded.model)))}; write it anew with mm embed"
        )


def read_query(query: str, name: str, loaded: "LoadedModel") -> tuple[str, Any]:
    """The input that a query is for, and its raw value: a text, a path, or a table's cells.

    Errors: ValueError where the model lacks such an input, has several, or there is no such file.
    """
    from mm.types import SUFFIXES

    inputs = {known: data.modality for known, data in loaded.spec.inputs.items()}
    told = ", ".join(f"{known} ({modality})" if known != modality else known for known, modality in inputs.items())
    if name and name not in inputs:
        raise ValueError(f"input={name}: the model reads {told}{near(name, inputs)}")
    suffix = Path(query).suffix.lower()
    by_suffix = next((modality for modality, known in SUFFIXES.items() if suffix in known), None)
    modality = inputs[name] if name else by_suffix or ("tabular" if query.startswith("{") else "text")
    fitting = [name] if name else [known for known, other in inputs.items() if other == modality]
    if not fitting:
        raise ValueError(f"query={query}: is {modality}, but the model reads {told}; input=NAME says which is meant")
    if len(fitting) > 1:
        raise ValueError(f"query={query}: {' or '.join(fitting)}? input=NAME says which is meant")
    if modality == "tabular":
        return fitting[0], read_row(query)
    is_file = os.path.isfile(query)
    if not is_file and (modality != "text" or (by_suffix and not name)):
        hint = "" if name else "; a text that ends like that is meant with input=NAME"
        raise ValueError(f"query={query}: no such file{hint}")
    return fitting[0], read_text(query) if is_file and modality == by_suffix == "text" else query


def read_row(query: str) -> dict[str, Any]:
    """Errors: ValueError where it is no JSON object of columns and cells."""
    try:
        found = json.loads(query)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"""query={query}: wanted columns and their cells, such as '{{"age": 41}}'""")
    return found


def read_text(path: str) -> str:
    """Errors: ValueError where a file holds no text."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"query={path}: can't be read as text ({error})") from None


def show(hits: "list[Hit]") -> None:
    """A table, the nearest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table("rank", "id", "input", "similarity", "source")
    for rank, hit in enumerate(hits, 1):
        table.add_row(str(rank), cell(hit.id), cell(hit.input), f"{hit.similarity:.4f}", cell(hit.source or ""))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
