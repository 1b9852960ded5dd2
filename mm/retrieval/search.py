"""Search in an embedding index for the items nearest to a text, an image, a sound or cells of a table."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mm.applying import open_model
from mm.batching import finish
from mm.checkpoint import TrainedModel
from mm.messages import listing, near
from mm.modalities import modality_of_file
from mm.reports import Report, Table
from mm.retrieval.embed import EMBEDDING, embed_batch, embedded_inputs, embedding_width, hash_weights
from mm.retrieval.index import EmbeddingIndex, Hit


@dataclass(repr=False)
class SearchReport(Report):
    """Results of `search`, the nearest first.

    Attributes:
        hits: The results.
        query_input: The input, or tower of inputs, that encoded the query.
        aligned: Whether the model was trained for retrieval between its inputs. Otherwise results from other inputs
            than `query_input` are meaningless.
        metrics: The similarity of the nearest item; empty if there are no results.
    """

    hits: list[Hit]
    query_input: str
    aligned: bool
    metrics: Mapping[str, float]

    def table(self) -> Table:
        """Return a table with one row per result."""
        columns = ["rank", "id", "input", "similarity", "source"]
        rows = [[rank, h.id, h.input, h.similarity, h.source] for rank, h in enumerate(self.hits, 1)]
        return Table(columns, rows)


def search(
    model: TrainedModel | str | Path,
    index: EmbeddingIndex | str | Path,
    query: str | dict[str, Any],
    top_k: int = 10,
    inputs: Sequence[str] | None = None,
    input: str | None = None,
    allow: Sequence[str] = (),
) -> SearchReport:
    """Search an index for the items nearest to a query.

    Args:
        model: The model that made the embeddings, or the path of its directory.
        index: The file that `embed` has written, opened or as a path.
        query: A text, the path of a file, or the cells of a table. The modality of a file follows from its suffix.
        top_k: Maximum number of items.
        inputs: Names of the inputs, or towers of inputs, to search; None: all.
        input: Name of the input that encodes the query, if it does not follow from the query.
        allow: Names of further packages whose classes the model directory may use.

    Returns:
        A report; its `hits` are the items, the nearest first.

    Raises:
        ValueError: If the index belongs to another model, if no input or several inputs fit the query, or if the file
            of the query can't be read.

    Example:
        for hit in search("outputs/first/model", "embeddings.parquet", "a smiling cat", top_k=3).hits:
            hit.id, hit.similarity, hit.source
    """
    if not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k: got {top_k!r}, wanted a whole number from 1")
    index = index if isinstance(index, EmbeddingIndex) else EmbeddingIndex.open(index)
    wanted = index.check_inputs(inputs)
    loaded = open_model(model, allow)
    check_same_model(loaded, index)
    name, raw = read_query(query, input or "", loaded)
    vector, side = embed_query(loaded, name, raw)
    hits = index.search(vector, top_k, wanted)
    metrics = {"search/similarity": hits[0].similarity} if hits else {}
    return SearchReport(hits, side, "retrieval" in loaded.task, metrics)


def embed_query(model: TrainedModel, name: str, raw: Any) -> tuple[np.ndarray, str]:
    """Embed a single raw value.

    Args:
        model: A trained model.
        name: Name of the input.
        raw: A text, a path, or another value that the transform of the input accepts.

    Returns:
        The unit vector, (D,), and the name of the input or tower that it belongs to.
    """
    batch = finish(model.read([{name: raw}]), model.transforms)
    side = next(side for side, inputs in embedded_inputs(model.model).items() if name in inputs)
    return embed_batch(model.model, batch).vectors[f"{side}/{EMBEDDING}"][0].numpy(), side


def check_same_model(model: TrainedModel, index: EmbeddingIndex) -> None:
    """Check that an index contains embeddings of a model.

    Raises:
        ValueError: If the embeddings are those of another model, of other weights, or of other inputs or towers.
    """
    width = embedding_width(model.model)
    if width != index.width:
        raise ValueError(
            f"{model.path} computes embeddings of width {width}, but those of {index.path} have width {index.width}; "
            "write the index again with mm embed and this model"
        )
    if hash_weights(model) != index.model:
        raise ValueError(
            f"{index.path} was written by another model, or with other weights, than {model.path}; write it anew "
            "with mm embed"
        )
    known = embedded_inputs(model.model)
    other = [name for name in index.inputs if name not in known]
    if other:  # of a model with towers, by an mm that wrote vectors of inputs, which nothing had aligned
        raise ValueError(
            f"{index.path} has vectors of {listing(other)}, the model gives those of "
            f"{listing(list(known))}; write it anew with mm embed"
        )


def read_query(query: str | dict[str, Any], name: str, model: TrainedModel) -> tuple[str, Any]:
    """Return the name of the input for a query, and the raw value of the query.

    Args:
        query: A text, a path, or the cells of a table as a dictionary or as JSON.
        name: Name of the input; "" if it follows from the query.
        model: A trained model.

    Returns:
        The name of the input, and a text, a path or a dictionary of cells.

    Raises:
        ValueError: If the model has no fitting input or several, or if the file does not exist.
    """
    inputs = {known: data.modality for known, data in model.spec.inputs.items()}
    listed = ", ".join(f"{known} ({modality})" if known != modality else known for known, modality in inputs.items())
    if name and name not in inputs:
        raise ValueError(f"input={name}: the model reads {listed}{near(name, inputs)}")
    is_cells = not isinstance(query, str)
    suffix = "" if is_cells else Path(query).suffix.lower()
    by_suffix = modality_of_file(suffix)
    guess = by_suffix or ("tabular" if is_cells or query.startswith("{") else "text")
    modality = inputs[name] if name else guess
    fitting = [name] if name else [known for known, other in inputs.items() if other == modality]
    if not fitting:
        raise ValueError(f"query={query}: is {modality}, but the model reads {listed}; input=NAME says which is meant")
    if len(fitting) > 1:
        raise ValueError(f"query={query}: {' or '.join(fitting)}? input=NAME says which is meant")
    if is_cells or modality == "tabular":
        return fitting[0], query if is_cells else parse_cells(query)
    is_file = os.path.isfile(query)
    if not is_file and (modality != "text" or (by_suffix and not name)):
        hint = "" if name else "; a text that ends like that is meant with input=NAME"
        raise ValueError(f"query={query}: no such file{hint}")
    return fitting[0], read_text(query) if is_file and modality == by_suffix == "text" else query


def parse_cells(query: str) -> dict[str, Any]:
    """Parse the JSON of a table's cells.

    Raises:
        ValueError: If it is not a JSON object of columns and cells.
    """
    try:
        cells = json.loads(query)
    except ValueError:
        cells = None
    if not isinstance(cells, dict):
        raise ValueError(f"""query={query}: wanted columns and their cells, such as '{{"age": 41}}'""")
    return cells


def read_text(path: str) -> str:
    """Read a text file.

    Raises:
        ValueError: If it can't be read as UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"query={path}: can't be read as text ({error})") from None
