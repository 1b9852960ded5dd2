"""Conversion of the cells of one file into a table of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm.batching import is_absent
from mm.cells import distinct, label_of, text_fault
from mm.cells.classes import one_form
from mm.data.column_names import check_columns, find_roles, input_columns, named, target_columns, way_out
from mm.data.media_files import file_faults, stat_files
from mm.data.module import DataModule
from mm.data.splitting import check_split, make_split
from mm.data.table import Cells, Fault, Table
from mm.data.tabular import cut_tabular, rows_of
from mm.messages import say
from mm.modalities import get_modality, modality_names
from mm.targets.classes import ClassTarget
from mm.types import ColumnData, DataSpec, InputData, TargetCodec


class Kept(NamedTuple):
    """Inputs that are read from shards instead of cells."""

    inputs: dict[str, tuple[str, str]]  # input name to column, modality
    raw: dict[str, Sequence[Any]]  # input name to raw values by row
    spec: dict[str, InputData]
    shard: np.ndarray  # (N,)


class Part(NamedTuple):
    """The rows of one file, and the cells of its targets, which are encoded when those of all files are known."""

    table: Table
    targets: dict[str, tuple[str, Sequence[Any]]]  # target name to column, cells
    roles: dict[str, str | None]  # id, split, group to column
    drawn: np.ndarray  # training rows that were drawn for validation, because the file has no validation rows


class Named(NamedTuple):
    """The columns of a file by their use."""

    inputs: dict[str, tuple[str, str]]  # input name to column, modality
    tabular: dict[str, tuple[ColumnData, ...]]  # input name to its columns
    targets: dict[str, str]  # target name to column
    roles: dict[str, str | None]  # id, split, group to column


class RowNumbers(Sequence[str]):
    """The indices of the rows as their IDs, for data without IDs."""

    def __init__(self, rows: int):
        self.rows = range(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        found = self.rows[row]
        return str(found) if isinstance(found, int) else [str(one) for one in found]


def read_part(
    cells: Cells,
    source: Path,
    columns: Mapping[str, Any],
    module: DataModule,
    kept: Kept | None = None,
    places: Sequence[str] | None = None,
) -> Part:
    """Read the rows of one file: resolve the columns, check the cells without decoding media, and split the rows.

    Args:
        cells: Column name to cells.
        source: Path of the file.
        columns: The setting `datamodule.columns`: role to column name.
        module: The data module.
        kept: Inputs that are read from shards; None: all inputs are read from cells.
        places: Where each row is in the file, as in `Table`.

    Raises:
        ValueError: If a column does not exist, or, with on_error=raise, for the first invalid row.
    """
    columns, tabular = cut_tabular(columns)
    if kept is None:
        cells, columns = join_pairs(cells, columns, source, module)
    found = find_columns(cells, source, columns, tabular, module, kept)
    root = source.parent if module.media_root is None else Path(module.media_root)
    raw = read_inputs(cells, root, found, kept)
    if kept is None and not module.trained:
        check_empty(raw, found, source)
    ids = read_ids(cells, found.roles["id"])
    id_column = found.roles["id"] or "id"
    groups = read_groups(cells, found.roles["group"])
    split, unknown, drawn = find_split(cells, found.roles, found.targets, groups, module)
    faults = [f._replace(message=f.message + way_out("id", found.roles, columns)) for f in wrong_ids(ids, id_column)]
    unknown = [f._replace(message=f.message + way_out("split", found.roles, columns)) for f in unknown]
    files: dict[str, np.ndarray] = {}
    for name, (column, modality) in found.inputs.items() if kept is None else ():
        faults += [Fault(row, column, wrong) for row, wrong in get_modality(modality).cell_faults(raw[name])]
        if get_modality(modality).in_files:
            files[name] = stat_files(raw[name])
            faults += file_faults(raw[name], files[name], cells[column], column, root)
    table = Table(
        inputs=raw,
        targets={},
        ids=ids,
        split=split,
        groups=groups,
        spec=DataSpec(inputs={}, targets={}),
        source=source.name,
        columns={name: column for name, (column, _) in found.inputs.items()},
        faults=[f for f in faults if split[f.row] != ""] + unknown,
        files=files,
        shard=None if kept is None else kept.shard,
        folders=[str(source if source.is_dir() else root)],
        places=places,
        drawn=found.roles["split"] is None and module.draw_split,
    )
    if module.on_error == "raise":  # else they are recorded once the rows of all files are numbered
        module.settle(table)
    leave_out(table, id_column, module.on_error)
    for name, (_, modality) in found.inputs.items():
        if name in found.tabular:  # what they hold is learnt once the rows of all files are known
            table.spec.inputs[name] = InputData(modality=modality, columns=found.tabular[name])
        elif kept is None:
            table.spec.inputs[name] = get_modality(modality).probe(
                raw[name], source, module.trained, found.inputs[name][0], files.get(name), root
            )
        else:
            table.spec.inputs[name] = kept.spec[name]
    return Part(table, {name: (column, cells[column]) for name, column in found.targets.items()}, found.roles, drawn)


def find_columns(
    cells: Cells,
    source: Path,
    columns: Mapping[str, Any],
    tabular: Mapping[str, tuple[ColumnData, ...]],
    module: DataModule,
    kept: Kept | None,
) -> Named:
    """Return the columns of the inputs and targets that the module uses; raise ValueError if one does not exist."""
    inputs = input_columns(cells, columns) if kept is None else kept.inputs
    targets = target_columns(cells, columns)
    # Columns of inputs that are not used need not exist.
    inputs = {n: found for n, found in inputs.items() if module.wanted is None or n in module.wanted} or inputs
    if module.trained:  # what a trained model does not predict need not be read
        targets = {name: column for name, column in targets.items() if name in module.known}
    tabular = {
        name: tabular.get(name, (ColumnData(name=column),))
        for name, (column, modality) in inputs.items()
        if get_modality(modality).of_columns
    }
    read = [column for name, (column, _) in inputs.items() if name not in tabular]
    read += [column.name for columns_of in tabular.values() for column in columns_of]
    roles = find_roles(cells, columns, {*read, *targets.values()})
    for role in ("split", "group"):
        if roles[role] != named(columns, role) and kept is None:
            say(
                f"{source.name}: the column '{role}' is taken as datamodule.columns.{role}; if it is none, set "
                f"datamodule.columns.{role}=false"
            )
    used = [*(read if kept is None else ()), *targets.values(), *filter(None, roles.values())]
    check_columns(cells, used, source, module.trained, set(targets.values()) - set(read))
    return Named(inputs, tabular, targets, roles)


def read_inputs(cells: Cells, root: Path, found: Named, kept: Kept | None) -> dict[str, Sequence[Any]]:
    """Return the raw values of each input, by row."""
    if kept is not None:
        return {name: kept.raw[name] for name in found.inputs}
    return {
        name: rows_of(cells, found.tabular[name])
        if name in found.tabular
        else get_modality(modality).read_cells(cells[column], root)
        for name, (column, modality) in found.inputs.items()
    }


def check_empty(raw: Mapping[str, Sequence[Any]], found: Named, source: Path) -> None:
    """Raise ValueError if no row has a value of an input."""
    for name, (column, _) in found.inputs.items():
        if all(map(is_absent, raw[name])):
            columns = " and ".join(f"'{one.name}'" for one in found.tabular.get(name, ())) or f"'{column}'"
            raise ValueError(f"{source}: no row has anything in column {columns}; leave out datamodule.columns.{name}")


def read_ids(cells: Cells, column: str | None) -> Sequence[str]:
    """Return the ID of every row: the cells of a column or, without a column, the indices of the rows."""
    if column is not None:
        return [label_of(cell) for cell in cells[column]]
    return RowNumbers(len(next(iter(cells.values()))))


def join_pairs(
    cells: Cells, columns: Mapping[str, Any], source: Path, module: DataModule
) -> tuple[Cells, Mapping[str, Any]]:
    """Join inputs that have two columns, such as text: [question, passage], into one column of pairs.

    A pair of two empty cells becomes an empty cell.
    """
    full = {name: one for name, one in (columns.get("inputs") or {}).items() if isinstance(one, Mapping)}
    told = {m: columns.get(m) for m in modality_names()} | {name: one.get("column") for name, one in full.items()}
    pairs = {name: value for name, value in told.items() if isinstance(value, list | tuple)}
    if not pairs:
        return cells, columns
    cells, columns = dict(cells), {**columns, "inputs": dict(columns.get("inputs") or {})}
    for name, pair in pairs.items():
        modality = full[name].get("modality") if name in full else name
        if len(pair) != 2 or modality not in modality_names() or not get_modality(modality).in_pairs:
            raise ValueError(
                f"datamodule.columns.{name}: got {list(pair)}, wanted a column, or two for a pair of texts"
            )
        label = "+".join(map(str, pair))
        if module.wanted is None or name in module.wanted:
            check_columns(cells, [str(column) for column in pair], source, module.trained)
            both = [get_modality(modality).read_cells(cells[str(column)], source.parent) for column in pair]
            cells[label] = [list(row) if any(row) else "" for row in zip(*both, strict=True)]
        if name in full:
            columns["inputs"][name] = {**full[name], "column": label}
        else:
            columns[name] = label
    return cells, columns


def leave_out(table: Table, id_column: str, on_error: str) -> None:
    """Remove rows with errors from their split (on_error=drop) before classes are counted, and clear invalid inputs."""
    for fault in table.faults:
        if on_error == "drop" or fault.column == id_column:  # no cell stands in for an id
            table.split[fault.row] = ""
        for name, column in table.columns.items():
            if column == fault.column:
                table.inputs[name][fault.row] = None


def wrong_ids(ids: Sequence[str], column: str) -> list[Fault]:
    """Return an error for every row whose ID is empty, can't be read, or repeats that of an earlier row."""
    if isinstance(ids, RowNumbers):
        return []
    first: dict[str, int] = {}
    faults = []
    for row, name in enumerate(ids):
        if not name:
            faults.append(Fault(row, column, "the id is empty; fill it in, or leave the column out"))
        elif (wrong := text_fault(name)) is not None:
            faults.append(Fault(row, column, f"the id can't be read: {wrong}"))
        elif first.setdefault(name, row) != row:
            faults.append(Fault(row, column, f"the id '{name}' is also that of row {first[name]}"))
    return faults


def read_groups(cells: Cells, column: str | None) -> np.ndarray | None:
    """Return the group of each row, (N,) of str; None without a column. A row with an empty cell is its own group."""
    if not column:
        return None
    names, place = distinct(cells[column])
    forms = one_form([name for name in names if name])
    own = [forms.get(name, "") for name in names]
    return np.array([own[i] or f"\0{row}" for row, i in enumerate(place.tolist())])


def find_split(
    cells: Cells,
    roles: Mapping[str, str | None],
    targets: Mapping[str, str],
    groups: np.ndarray | None,
    module: DataModule,
) -> tuple[np.ndarray, list[Fault], np.ndarray]:
    """Return the split of each row from the split column, or draw it if there is none or it has no validation rows.

    Returns:
        The split of each row, (N,) of str; an error for each cell that is not the name of a split; and the indices of
        the training rows that were drawn for validation, because the column has no validation rows.
    """
    count = len(next(iter(cells.values())))
    nothing = np.zeros(0, dtype=np.int64)
    if not module.draw_split and roles["split"] is None:
        return np.full(count, "test", dtype=object), [], nothing
    labels = None
    strata = [strata_of(cells[column], module.reader(name)) for name, column in targets.items()]
    for found in sorted(strata, key=lambda found: not isinstance(found[0], str)):  # one name a row before several
        if labels is None and found[0] is not None:
            labels = found
    if roles["split"] is None:
        return make_split(count, module.split, labels, groups), [], nothing
    split, faults = check_split(cells[roles["split"]], roles["split"])
    train = np.flatnonzero(split == "train")
    if len(train) and module.split.val and module.draw_split and not (split == "val").any():
        part = replace(module.split, test=0)
        take = [None if x is None else x[train] for x in (labels, groups)]
        split[train] = make_split(len(train), part, *take)
        return split, faults, train[split[train] == "val"]
    return split, faults, nothing


def strata_of(cells: Sequence[Any], reader: TargetCodec) -> np.ndarray:
    """Return the strata of each row for a stratified split, (N,) of names, of lists of names, or of None."""
    if isinstance(reader, ClassTarget):
        names, place = distinct(cells)
        forms = one_form([name for name in names if name])
        return np.array([forms.get(name, "") for name in names], dtype=object)[place]
    strata = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):  # at once, lists would make a table
        strata[row] = reader.strata(cell)
    return strata
