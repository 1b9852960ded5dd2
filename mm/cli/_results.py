"""What a run leaves behind: metrics.json, pictures, predictions, the model directory; and what it says at its end."""

import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mm.cli._app import shown
from mm.files import whole
from mm.messages import cell, command, markdown, plain
from mm.metrics.directions import DIRECTIONS, known_direction
from mm.tasks.answers import common, fit, to_arrow

WIDE = 250  # columns of a table in a file
# What is said of the rows that are counted as data/KIND/INPUT: the notes of the transforms, see mm.types.Read.
NOTES = {
    "upsampled": "were recorded at a lower rate than datamodule.transforms.*.sample_rate, and have nothing above it",
    "downsampled": "were recorded at a higher rate than datamodule.transforms.*.sample_rate; what is above it was cut",
    "mixed_down": "have several channels, which were averaged",
    "colour_dropped": "have colours that were read as grey; set datamodule.transforms.*.channels=3 to keep them",
    "frames_dropped": "are animated or have several pages, of which the first was read",
    "transparent": "have transparent parts, which were laid on white",
    "dark": "have 16 bits a pixel of which they use few: they look black; set datamodule.transforms.*.max_value",
    "clipped": "have values above datamodule.transforms.*.max_value, which were read as it; raise it",
}
BLOCK = 65_536  # rows whose targets are Python objects at once


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Beside its name, then renamed."""
    # JSON has no NaN
    finite = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in data.items()}
    with whole(path) as part:
        part.write_text(json.dumps(finite, indent=1, allow_nan=False), encoding="utf-8")


def write_metrics(folder: Path, results: Mapping[str, Any], directions: Mapping[str, bool | None]) -> Path:
    """Write a run's numbers, and beside them whether a higher value of each is better, which `mm compare` reads.

    Args:
        folder: The run folder.
        results: Name -> number, which become metrics.json.
        directions: Name -> whether higher is better, None for neither; other names are looked up.

    Returns:
        The path of metrics.json. Whoever finds it finds metrics.directions.json, too.
    """
    found = {name: directions.get(name, known_direction(name)) for name in results}
    write_json(folder / DIRECTIONS, {name: higher for name, higher in found.items() if higher is not None})
    path = folder / "metrics.json"
    write_json(path, results)
    return path


def write_figures(folder: Path, figures: Mapping[str, Any]) -> list[Path]:
    """Write pictures, such as test/report to test_report.png. One that can't be drawn is left out, with a warning.

    Args:
        folder: The run folder.
        figures: Name to matplotlib's Figure, or to a function that draws one.

    Returns:
        The files.
    """
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name.replace('/', '_')}.png"
        try:
            with warnings.catch_warnings(), whole(path) as part:
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as an empty box
                drawn: Any = figure() if callable(figure) else figure
                drawn.savefig(part, dpi=120, format="png")
        except Exception as error:  # of matplotlib: no number may be lost by it
            cause = next(iter(str(error).splitlines()), "")
            print(plain(f"{shown(path)} could not be drawn: {type(error).__name__}: {cause}"), file=sys.stderr)
            continue
        paths.append(path)
    return paths


def write_predictions(path: Path, datamodule: Any, rows: list[int], decoded: Any, truth: bool) -> None:
    """Write predictions.parquet, a block of rows at a time.

    Its columns: id, row, error where there was one; per head prediction, probabilities, and, last, truth.

    Args:
        path: The file.
        datamodule: Where the rows are from, and what was wrong with them.
        rows: Their numbers, in the order of the file.
        decoded: mm.tasks.answers.Answers of them, of all processes.
        truth: Whether targets are written as well.
    """
    import pyarrow
    import pyarrow.parquet

    errors: dict[int, list[str]] = {}
    for (row, column), message in datamodule.faults.items():
        errors.setdefault(row, []).append(f"{column}: {message}")
    about = {
        "id": whole_column(rows, datamodule.table.ids.__getitem__),
        "row": whole_column(rows, int),
        "error": whole_column(rows, lambda row: "; ".join(errors[row]) if row in errors else None),
    }
    true = {
        f"{name}/truth": whole_column(rows, partial(datamodule.truth, name))
        for name in (datamodule.table.targets if truth else ())
    }
    with ExitStack() as stack:
        part, writer, begin = stack.enter_context(whole(path)), None, 0
        for size, answers in decoded.tables(rows):
            columns = {name: x.slice(begin, size) for name, x in about.items()}
            columns |= dict(zip(answers.column_names, answers.columns))
            columns |= {name: x.slice(begin, size) for name, x in true.items()}
            table = pyarrow.table(columns)
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(part, table.schema))
            writer.write_table(table)
            begin += size


def whole_column(rows: Sequence[int], value: Callable[[int], Any]) -> Any:
    """A column that is small enough to be held for all rows, as Arrow; no more than BLOCK of its values as objects.

    Args:
        rows: The numbers of its rows.
        value: The value of a row.
    """
    import pyarrow

    parts = [to_arrow([value(row) for row in rows[i : i + BLOCK]]) for i in range(0, max(1, len(rows)), BLOCK)]
    kind = common([part.type for part in parts])
    return pyarrow.chunked_array([fit(part, kind) for part in parts], type=kind)


def save(
    folder: Path,
    results: Mapping[str, Any],
    task: Any,
    datamodule: Any,
    rows: list[int],
    truth: bool,
    directions: Mapping[str, bool | None] | None = None,
) -> dict[str, Path]:
    """metrics.json first, then predictions of these rows, errors and pictures. -> what -> where

    directions: of metrics, where they are others than the task's
    """
    saved = {"metrics": write_metrics(folder, results, task.directions() | (directions or {}))}
    if rows:
        saved["predictions"] = folder / "predictions.parquet"
        write_predictions(saved["predictions"], datamodule, rows, task.decoded, truth)
    if datamodule.faults:
        saved["errors"] = folder / "errors.csv"
        datamodule.write_errors(saved["errors"])
    return saved | {path.stem: path for path in write_figures(folder, task.figures)}


def print_results(
    results: Mapping[str, Any], heads: list[str], folder: Path, saved: Mapping[str, Path], commands: list[str]
) -> None:
    """A table of the test, where everything was saved, what to type next; the last line is the run folder."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    for head in heads:
        rows = table_rows(results, f"{head}/" if len(heads) > 1 else "")
        if rows:
            metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
            folded = [
                Column(cell(metric), overflow="fold") for metric in metrics
            ]  # nothing is cut on a narrow terminal
            table = Table(Column(cell("" if len(heads) == 1 else head), no_wrap=True), *folded)
            for place, row in rows.items():
                table.add_row(cell(place), *(number(row.get(m)) for m in metrics))
            console.print(table)
    for line in notes(results):
        console.print(cell(line), soft_wrap=True)
    wide = max((len(what) for what in saved), default=0)
    for what, path in saved.items():
        console.print(cell(f"{what:{wide}}  {shown(path)}"), soft_wrap=True)
    if commands:
        console.print("next:", highlight=False)
        for line in commands:
            console.print(cell(f"  {line}"), soft_wrap=True)
    print(shown(folder))


def notes(results: Mapping[str, Any]) -> list[str]:
    """What a user must know of the rows: those that could not be read, and inputs of which a part was left out."""
    found = []
    if results.get("data/faulty_rows"):
        found.append(f"{rows(results['data/faulty_rows'])} not as they should be: see errors.csv")
    if results.get("data/without_input"):
        found.append(f"{rows(results['data/without_input'])} without any input: neither learnt nor measured")
    for name, count in results.items():
        if name.startswith("data/cut/") and count:
            what = name.removeprefix("data/cut/")
            found.append(f"{what}: of {count} rows a part was cut, at datamodule.transforms.{what}.max_length")
        if name.startswith("data/target_cut_off/") and count:
            what = name.removeprefix("data/target_cut_off/")
            found.append(f"{what}: of {count} rows it lies in what was cut off; they are measured against all of it")
        if name.startswith("data/unknown/") and count:
            what = name.removeprefix("data/unknown/")
            found.append(f"{what}: {count} rows name what the training rows do not have; it was read as another class")
        kind, _, what = name.removeprefix("data/").partition("/")
        if name.startswith("data/") and kind in NOTES and count:
            found.append(f"{what}: {rows(count).removesuffix(' is').removesuffix(' are')} {NOTES[kind]}")
    return found


def rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def table_rows(results: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """Place, such as test[audio] -> metric -> value, of one head; the many numbers of a report stay in metrics.json."""
    rows: dict[str, dict[str, Any]] = {}
    for name, value in results.items():
        place, _, metric = name.partition("/")
        metric = metric.removeprefix(prefix)
        many = "/" in metric or (metric.endswith(("_macro", "_micro", "_weighted")) and metric != "f1_macro")
        many |= metric.startswith("chance@") and metric != "chance@1"  # k / rows, which stand beside it
        if place.startswith("test") and name == f"{place}/{prefix}{metric}" and not many:
            rows.setdefault(place, {})[metric] = value
    return rows


def number(value: float | None) -> str:
    """Four digits, or a whole number."""
    return "" if value is None else str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"


def model_card(
    words: Sequence[str], source: str, counts: Mapping[str, int], results: Mapping[str, float], model: Any
) -> str:
    """Write the README.md of a model directory.

    Args:
        words: The command that trained it.
        source: Where its data is from.
        counts: Rows of each split.
        results: What was measured.
        model: A MultimodalModel.

    Returns:
        Markdown, in which names from the data stand as they are.
    """
    main = {n: v for n, v in results.items() if n.count("/") == 1 and n.startswith("test")}
    lines = [f"| {markdown(name)} | {number(value)} |" for name, value in main.items()] or ["| none measured | |"]
    table = "\n".join(lines)
    rows = ", ".join(f"{name} {count}" for name, count in counts.items())
    packages = ", ".join(f"{name} {version(name)}" for name in ("mm", "torch", "lightning", "transformers", "timm"))
    parameters = sum(p.numel() for p in model.parameters())
    inputs = ", ".join(map(markdown, model.inputs))
    example = ", ".join(f"{plain(json.dumps(name, ensure_ascii=False))}: ..." for name in model.inputs)
    title = f"{', '.join(map(markdown, model.heads))} from {inputs}"
    use = f"predict({{{example}}})  # any subset of the inputs"
    if not len(model.heads):
        title = f"Vectors of {inputs}"
        use = "encode(inputs, masks)  # input -> Features, of which `pooled` counts"
    return f"""# {title}

A multimodal model of {parameters:,} parameters, trained by `mm`.

    import mm
    model = mm.load("this/folder")
    model.{use}

Data: {markdown(source)}; rows: {rows}.

Command:

    {command(*words)}

| metric | value |
|---|---|
{table}

Versions: {packages}.
"""
