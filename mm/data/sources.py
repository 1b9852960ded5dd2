"""Conversion of one file, or of several files with weights, to the Table of a data module."""

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from mm.data.columns import Part
from mm.data.fingerprint import Digested, column
from mm.data.media_files import NO_FILE, STATS
from mm.data.module import DataModule
from mm.data.readers.in_memory import is_table, table_name
from mm.data.table import SPLITS, Origin, Table
from mm.data.tabular import learn_columns
from mm.data.targets import add_target
from mm.fingerprints import Identified
from mm.messages import near
from mm.modalities import get_modality, sort_inputs
from mm.modalities.vision import USUAL
from mm.text_column import join_columns
from mm.types import DataSpec, InputData


class Source(NamedTuple):
    """One entry of `datamodule.path`."""

    path: str
    columns: Mapping[str, Any] | None = None  # its own
    weight: float = 1.0
    split: str | None = None  # of all its rows
    column_names: Sequence[str] | None = None  # its own
    table: Any = None  # a table in memory, instead of the file at `path`, which then names it


def sources(path: Any, *more: str) -> list[Source]:
    """Return the entries of `datamodule.path`.

    Args:
        path: The setting: a path, a mapping, a table in memory, or a list of them.
        *more: Keys that an entry may have in addition to path and weight.

    Raises:
        ValueError: If an entry is invalid.
    """
    found = []
    for entry in path if isinstance(path, list | tuple) and not is_table(path) else [path]:
        full: dict[str, Any] = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
        table = full["path"] if "columns" in more and is_table(full.get("path")) else None
        if table is not None:
            full["path"] = table_name(table)
        if isinstance(full.get("path"), PathLike):
            full["path"] = os.fspath(full["path"])
        known = ("path", "weight", *more)
        for key in full:
            if key not in known:
                if key == "header" and "column_names" in more:
                    raise ValueError(f"datamodule.path: '{key}' of {dict(full)} is now 'column_names'")
                raise ValueError(
                    f"datamodule.path: '{key}' of {dict(full)}: nothing reads it, wanted {', '.join(known)}"
                    f"{near(str(key), known)}"
                )
        weight = full.get("weight", 1.0)
        if not isinstance(full.get("path"), str) or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"datamodule.path: got {entry}, wanted a path, or {{path: ..., weight: 2.0}}")
        if not 0 < weight < np.inf:
            raise ValueError(f"datamodule.path: got weight {weight} for {full['path']}, wanted a number above 0")
        split = full.get("split")
        if split not in (None, *SPLITS):
            raise ValueError(f"datamodule.path: got split '{split}' for {full['path']}, wanted {', '.join(SPLITS)}")
        found.append(Source(full["path"], full.get("columns"), float(weight), split, full.get("column_names"), table))
    if not found:
        raise ValueError("datamodule.path: got an empty list, wanted at least one path")
    return found


def make_table(parts: Sequence[Part], given: Sequence[Source], module: DataModule) -> Table:
    """Join the rows of all parts and encode their targets together, so that the classes are those of all parts.

    If a part lacks an input or target, its rows lack the input or are unlabelled. If any part has a split column with
    validation rows, no other part draws validation rows from its training rows.

    Args:
        parts: The rows of each file.
        given: The entries of `datamodule.path`.
        module: The data module.
    """
    own = [part for part in parts if part.roles["split"] is not None]
    if any(len(np.setdiff1d(np.flatnonzero(part.table.split == "val"), part.drawn)) for part in own):
        for part in parts:
            again = part.drawn[part.table.split[part.drawn] == "val"]  # others have left every split
            part.table.split[again] = "train"
    table = parts[0].table if len(parts) == 1 else join([part.table for part in parts], given)
    for name, data in list(table.spec.inputs.items()):
        if get_modality(data.modality).of_columns:
            learn_columns(table, name, module)
    for name in dict.fromkeys(name for part in parts for name in part.targets):
        columns: list[str] = []
        cells: list[Sequence[Any]] = []
        usual = next(part.targets[name][0] for part in parts if name in part.targets)
        for part in parts:
            rows = len(part.table.ids)
            column, found = part.targets.get(name, (usual, [None] * rows))
            part.table.columns[name] = column
            columns += [column] * rows
            cells.append(found)
        add_target(table, name, columns, join_columns(cells), module)
    return table


def join(tables: Sequence[Table], given: Sequence[Source]) -> Table:
    """Join the tables of several files, before their targets are encoded."""
    names = [table.source for table in tables]
    if len(set(names)) < len(names):
        names = [source.path for source in given]
    if len(set(names)) < len(names):
        raise ValueError(f"datamodule.path: a file is named twice in {', '.join(names)}; give it a weight instead")
    sizes = [len(table.ids) for table in tables]
    firsts = [0, *accumulate(sizes)]
    spec = join_specs([table.spec.inputs for table in tables], names)
    ordered = sort_inputs(spec)
    inputs = {name: [t.inputs.get(name, [None] * n) for t, n in zip(tables, sizes)] for name in ordered}
    sharded = any(table.shard is not None for table in tables)
    shards = [np.zeros(n, dtype=np.int64) if t.shard is None else t.shard for t, n in zip(tables, sizes)]
    ends = [0, *accumulate(int(shard.max()) + 1 for shard in shards)]
    return Table(
        inputs={name: Joined(raw) if sharded else join_columns(raw) for name, raw in inputs.items()},
        targets={},
        ids=[f"{name}:{one}" for name, table in zip(names, tables) for one in table.ids],
        split=np.concatenate([table.split for table in tables]),
        groups=join_groups(tables),
        spec=DataSpec(inputs=spec, targets={}),
        source=" + ".join(names),
        faults=[f._replace(row=f.row + first) for table, first in zip(tables, firsts) for f in table.faults],
        origins=[Origin(n, f, t.columns, s.weight) for n, f, t, s in zip(names, firsts, tables, given)],
        files={name: join_files(tables, name) for name in ordered if any(name in table.files for table in tables)},
        shard=np.concatenate([shard + end for shard, end in zip(shards, ends)]) if sharded else None,
        folders=[folder for table in tables for folder in table.folders],
        places=join_places(tables),
        drawn=any(table.drawn for table in tables),
    )


def join_places(tables: Sequence[Table]) -> list[str] | None:
    """Concatenate the places of rows in their files; None if every row is a row of its file."""
    if all(table.places is None for table in tables):
        return None
    return [place for t in tables for place in t.places or [f"row {row}" for row in range(len(t.ids))]]


def join_files(tables: Sequence[Table], name: str) -> np.ndarray:
    """Concatenate the file statistics of an input, (N, 3); a table without the input has no files."""
    none = [np.full((len(table.ids), STATS), NO_FILE, dtype=np.int64) for table in tables]
    return np.concatenate([table.files.get(name, absent) for table, absent in zip(tables, none)])


def join_groups(tables: Sequence[Table]) -> np.ndarray | None:
    """Concatenate the groups of rows, (N,) of str, or None; each row of a table without groups is its own group."""
    if all(table.groups is None for table in tables):
        return None
    parts = [
        np.array([f"\0{i} {row}" for row in range(len(table.ids))]) if table.groups is None else table.groups
        for i, table in enumerate(tables)
    ]
    return np.concatenate(parts)


def join_specs(specs: Sequence[Mapping[str, InputData]], names: Sequence[str]) -> dict[str, InputData]:
    """Combine the facts about each input over all files; raise ValueError if an input has several modalities."""
    found: dict[str, InputData] = {}
    first: dict[str, str] = {}
    for spec, source in zip(specs, names):
        for name, data in spec.items():
            known = found.setdefault(name, data)
            first.setdefault(name, source)
            if known.modality != data.modality:
                raise ValueError(
                    f"the input '{name}' is {known.modality} in {first[name]}, but {data.modality} in {source}; give "
                    "one another name with columns.inputs"
                )
            found[name] = InputData(
                modality=data.modality,
                size=known.size if data.size in (known.size, None) else data.size if known.size is None else USUAL,
                channels=max(filter(None, (known.channels, data.channels)), default=None),
                max_value=max(filter(None, (known.max_value, data.max_value)), default=None),
                sample_rate=max(filter(None, (known.sample_rate, data.sample_rate)), default=None),
                columns=tuple(dict.fromkeys((*(known.columns or ()), *(data.columns or ())))) or None,
            )
    return found


class Joined(Identified, Sequence[Any]):
    """Values of an input in several files of shards (or absent), one file after the other, without copying."""

    def __init__(self, parts: Sequence[Sequence[Any]]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.identity = " ".join(p.identity if isinstance(p, Identified) else f"{len(p)} absent" for p in parts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def digests(self) -> np.ndarray:
        """Return the digest of each row, as `fingerprint.Digested` does."""
        return np.concatenate([p.digests() if isinstance(p, Digested) else column(p) for p in self.parts])

    def __getitem__(self, row: Any) -> Any:
        part = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[part][row - (int(self.ends[part - 1]) if part else 0)]
