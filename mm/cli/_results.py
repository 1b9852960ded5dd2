"""What a run says at its end: a table of the test, notes on its rows, its files, and what to type next."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm.files import shown
from mm.messages import cell
from mm.runs.card import format_number

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
                table.add_row(cell(place), *(format_number(row.get(m)) for m in metrics))
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
    if results.get("data/no_input"):
        found.append(f"{rows(results['data/no_input'])} without any input: neither learnt nor measured")
    for name, count in results.items():
        if name.startswith("data/truncated/") and count:
            what = name.removeprefix("data/truncated/")
            found.append(f"{what}: of {count} rows a part was cut, at datamodule.transforms.{what}.max_length")
        if name.startswith("data/target_truncated/") and count:
            what = name.removeprefix("data/target_truncated/")
            found.append(f"{what}: of {count} rows it lies in what was cut off; they are measured against all of it")
        if name.startswith("data/oov/") and count:
            what = name.removeprefix("data/oov/")
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
