"""Write the embedding of every row of a data set into a Parquet file."""

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
        row: (R,) row numbers.
        vectors: Column (`embedding`, or `NAME/embedding`) to vectors (R, D), zeros where absent.
        present: Column to which rows have one, (R,) bool.
    """

    row: Tensor
    vectors: dict[str, Tensor]
    present: dict[str, Tensor]


@dataclass(repr=False)
class EmbeddingReport(Report):
    """What `embed` has written.

    Attributes:
        path: The Parquet file: a row for each row of the data, with its id, number, vectors and sources.
        counts: Input, or tower of inputs, to how many rows have its vector; "embedding" counts those of all together.
        width: D, the length of each vector.
        metrics: The counts, and counts of the data.
    """

    path: Path
    counts: dict[str, int]
    width: int
    metrics: Mapping[str, float]

    def table(self) -> Table:
        """Return a row for each input."""
        return Table(["input", "vectors"], list(self.counts.items()), title=f"{self.path}: {self.width} numbers each")


def embed(
    model: TrainedModel | str | Path,
    data: DataSource,
    path: str | Path,
    split: str = "all",
    device: str | torch.device = "auto",
) -> EmbeddingReport:
    """Write the embedding of every row: of each input, or of each tower of inputs, and of all together.

    Vectors have unit length. The file is read by `search`, and by anything that reads Parquet.

    Args:
        model: A trained model, or the path of its directory.
        data: The rows; targets are not needed.
        path: The file, which appears under its name when it is complete.
        split: The rows' split, or `all`.
        device: `auto` for the accelerator where there is one, or a torch device.

    Returns:
        A report that counts the vectors.

    Raises:
        ValueError: If the data has none of the model's inputs, or no such split.

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
    """Return what has a vector of its own, each tower or else each input, and the inputs that it is of."""
    fusion = model.fusion
    return dict(fusion.inputs) if isinstance(fusion, Towered) else {name: [name] for name in model.inputs}


def embedding_width(model: MultimodalModel) -> int:
    """Return D, the length of a model's vectors."""
    return next(iter(model.projections.values())).out_features


@torch.inference_mode()
def embed_batch(model: MultimodalModel, batch: Batch) -> RowVectors:
    """Return the unit vectors of a finished batch.

    A row that became several windows has the direction of the mean of their unit vectors.
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
    """Write embeddings into a Parquet file that appears under its name when it is complete.

    Args:
        path: The file.
        width: D, the length of each vector.
        ids: The id of every row of the data.
        sources: Name of an input, or of a tower, to the raw values by row of each of its inputs.
        metadata: Keys and values of the file's own metadata, which say what model the vectors are of.
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
        """Add the rows of a batch, without its fillers."""
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
        """Write the pending rows, and give the file its name."""
        self.flush()
        self.file.close()
        put(self.part, self.path)

    def discard(self) -> None:
        """Remove a file that was not completed."""
        self.file.close()
        self.part.unlink(missing_ok=True)


def describe_source(*raw: Any) -> str | None:
    """Return what a person reads of raw inputs: a text, a path, the place in a shard; of numbers nothing."""
    parts = []
    for one in raw:
        parts.append(str(one) if isinstance(one, str | Path | Stored) else "")
        if isinstance(one, Mapping):  # of a table
            parts[-1] = json.dumps(one, ensure_ascii=False, default=str)
    # bytes that were no UTF-8 are lone surrogates
    return ", ".join(filter(None, parts)).encode(errors="backslashreplace").decode() or None


def hash_weights(model: TrainedModel) -> str:
    """Return a digest of a model's weights: that of its directory's file, where it has one."""
    file = None if model.path is None else model.path / "model.safetensors"
    if file is not None and file.is_file():
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, x in model.model.state_dict().items():
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
