"""Embeddings of the rows of a data set, written into a Parquet file.

Letters in shapes: D is the width of the embeddings, R the number of rows in a batch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.applying import count_faults, find_device, match_data, open_model
from mm.checkpoint import TrainedModel, to_device
from mm.data_source import DataSource
from mm.files import put
from mm.model import MultimodalModel
from mm.reports import Report, Table
from mm.retrieval.index import EMBEDDING
from mm.transforms.stored import Stored
from mm.types import Batch, Towered
from mm.windows import directions

ROW_GROUP = 4096  # rows of the file that are written, and read, at once


class RowVectors(NamedTuple):
    """Unit vectors of the rows of a batch.

    Attributes:
        row: Row indices in the data, (R,); negative for rows that only fill up the batch.
        vectors: Column (`embedding`, or `NAME/embedding`) to vectors, (R, D); zeros if the input is absent.
        present: Column to whether each row has the vector, (R,) bool.
    """

    row: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]


@dataclass(repr=False)
class EmbeddingReport(Report):
    """Report of the embeddings that `embed` has written.

    Attributes:
        path: The Parquet file, with the ID, row index, vectors and sources of each row of the data.
        counts: Name of an input, or of a tower of inputs, to the number of rows that have its vector; "embedding": the
            number of rows with a vector of all inputs together.
        width: Width D of the vectors.
        metrics: The counts as metrics, and counts of rows that could not be read or were changed.
    """

    path: Path
    counts: dict[str, int]
    width: int
    metrics: Mapping[str, float]

    def table(self) -> Table:
        """Return a table with one row per input or tower."""
        return Table(["input", "vectors"], list(self.counts.items()), title=f"{self.path}: {self.width} numbers each")


def embed(
    model: TrainedModel | str | Path,
    data: DataSource,
    path: str | Path,
    split: str = "all",
    device: str | torch.device = "auto",
) -> EmbeddingReport:
    """Write the embeddings of every row into a Parquet file.

    A row has a vector for each input, or for each tower of inputs if the fusion has towers, and a vector of all inputs
    together. Vectors have length 1. The file can be searched with `search`, and read with any Parquet library.

    Args:
        model: A trained model, or the path of its directory.
        data: The data. Targets are not needed.
        path: Path of the file, which exists under this name only when it is complete.
        split: Split of the rows, or `all`.
        device: `auto` for the accelerator if there is one, or a torch device.

    Returns:
        A report with the number of vectors.

    Raises:
        ValueError: If the data has none of the model's inputs, or if the split is unknown.

    Example:
        report = embed("outputs/first/model", data, "embeddings.parquet")
        search("outputs/first/model", report.path, "a smiling cat", inputs=["vision"])
    """
    loaded, path = open_model(model), Path(path)
    data = match_data(loaded, data, labelled=False)
    loader = data.loader(split)
    device_before = next(loaded.model.parameters()).device
    target = find_device(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = EmbeddingWriter(
        path,
        embedding_width(loaded.model),
        data.ids,
        {name: [data.inputs[one] for one in inputs] for name, inputs in embedded_inputs(loaded.model).items()},
        {"model": hash_weights(loaded)},
    )
    from tqdm import tqdm

    try:
        loaded.model.to(target)
        for batch in tqdm(loader, desc="embed", leave=False, disable=None):  # None: only on a terminal
            writer.add(embed_batch(loaded.model, data.finish(to_device(batch, target))))
        writer.close()
    finally:
        writer.discard()
        loaded.model.to(device_before)
    counts = {name.removesuffix(f"/{EMBEDDING}"): count for name, count in writer.counts.items()}
    metrics = {f"embed/{name}": count for name, count in counts.items()} | count_faults(data)
    return EmbeddingReport(path, counts, writer.width, metrics)


def embedded_inputs(model: MultimodalModel) -> dict[str, Sequence[str]]:
    """Return the towers of a model, or else its inputs, by name, each with the inputs that its vector combines."""
    fusion = model.fusion
    return dict(fusion.inputs) if isinstance(fusion, Towered) else {name: [name] for name in model.inputs}


def embedding_width(model: MultimodalModel) -> int:
    """Return the width D of a model's embeddings."""
    return next(iter(model.projections.values())).out_features


@torch.inference_mode()
def embed_batch(model: MultimodalModel, batch: Batch) -> RowVectors:
    """Return the unit vectors of a batch that is on the device of the model.

    If a row is split into several windows, its vector is the normalised mean of the unit vectors of the windows.

    Args:
        model: The model.
        batch: The batch, after the last step of its transforms (`finish`).
    """
    features = model.encode(batch.inputs, batch.masks)
    fused = model.fusion(features)
    pooled = {f"{name}/{EMBEDDING}": f.pooled for name, f in features.items()}
    present = {f"{name}/{EMBEDDING}": f.mask.any(1) for name, f in features.items()}
    if isinstance(model.fusion, Towered):
        columns = [f"{name}/{EMBEDDING}" for name in embedded_inputs(model)]
        pooled = dict(zip(columns, fused.tokens.unbind(1), strict=True))
        present = dict(zip(columns, fused.mask.unbind(1), strict=True))
    pooled[EMBEDDING] = fused.pooled
    present[EMBEDDING] = torch.stack(list(present.values())).any(0)
    units = {name: F.normalize(x.float(), dim=-1) * present[name].unsqueeze(1) for name, x in pooled.items()}
    merged = {name: directions(unit, present[name], batch.row) for name, unit in units.items()}
    vectors = {name: unit for name, (_, unit, _) in merged.items()}
    return RowVectors(merged[EMBEDDING][0], vectors, {name: there for name, (_, _, there) in merged.items()})


class EmbeddingWriter:
    """Writer of embeddings into a Parquet file, which exists under its name only when it is complete.

    Args:
        path: Path of the file.
        width: Width D of the vectors.
        ids: ID of every row of the data.
        sources: Name of an input or tower to the raw values of each of its inputs, by row index.
        metadata: Metadata of the file, which identifies the model of the vectors.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        ids: Sequence[str],
        sources: Mapping[str, Sequence[Sequence[Any]]],
        metadata: Mapping[str, str],
    ):
        self.path, self.ids, self.sources, self.width = path, ids, sources, width
        vector = pa.list_(pa.float32(), width)
        fields = [("id", pa.string()), ("row", pa.int64()), (EMBEDDING, vector)]
        for name in sources:
            fields += [(f"{name}/{EMBEDDING}", vector), (f"{name}/source", pa.string())]
        self.schema = pa.schema(fields, metadata=dict(metadata))
        self.part = path.with_name(f"{path.name}.part")
        self.file = pq.ParquetWriter(self.part, self.schema, use_dictionary=False)
        self.pending: list[pa.RecordBatch] = []
        self.counts = dict.fromkeys([EMBEDDING, *(f"{name}/{EMBEDDING}" for name in sources)], 0)

    def add(self, embedded: RowVectors) -> None:
        """Append the rows of a batch, without the rows that only fill it up."""
        real = embedded.row >= 0
        rows = embedded.row[real].tolist()
        columns: dict[str, Any] = {"id": [self.ids[row] for row in rows], "row": rows}
        for name, x in embedded.vectors.items():
            absent = ~embedded.present[name][real].cpu().numpy()
            flat = pa.array(x[real].cpu().numpy().reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, self.width, mask=pa.array(absent))
            self.counts[name] += int((~absent).sum())
        for name, raw in self.sources.items():
            columns[f"{name}/source"] = [describe_source(*(values[row] for values in raw)) for row in rows]
        self.pending.append(pa.RecordBatch.from_pydict(columns, self.schema))
        if sum(len(batch) for batch in self.pending) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the pending rows as a row group."""
        if self.pending:
            self.file.write_table(pa.Table.from_batches(self.pending))
            self.pending = []

    def close(self) -> None:
        """Write the pending rows, and rename the temporary file to its final name."""
        self.flush()
        self.file.close()
        put(self.part, self.path)

    def discard(self) -> None:
        """Remove the temporary file if it was not completed."""
        self.file.close()
        self.part.unlink(missing_ok=True)


def describe_source(*raw: Any) -> str | None:
    """Describe raw values for display: a text, a path, a location in a shard, or cells of a table as JSON.

    Values of other types, such as numbers, are left out. The result is None if nothing is left.
    """
    parts = []
    for one in raw:
        parts.append(str(one) if isinstance(one, str | Path | Stored) else "")
        if isinstance(one, Mapping):  # of a table
            parts[-1] = json.dumps(one, ensure_ascii=False, default=str)
    # bytes that were no UTF-8 are lone surrogates
    return ", ".join(filter(None, parts)).encode(errors="backslashreplace").decode() or None


def hash_weights(model: TrainedModel) -> str:
    """Return a digest of a model's weights: that of the weights file in its directory, if there is one."""
    file = None if model.path is None else model.path / "model.safetensors"
    if file is not None and file.is_file():
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, x in model.model.state_dict().items():
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
