"""Summary of a run for the user: rows of a table of metrics, and notes on the data."""

from collections.abc import Mapping
from typing import Any

# Note on the rows that are counted as data/KIND/INPUT; see `notes` of mm.types.EncodedInput.
NOTES = {
    "upsampled": "were recorded at a lower rate than datamodule.transforms.*.sample_rate, and have nothing above it",
    "downsampled": "were recorded at a higher rate than datamodule.transforms.*.sample_rate; what is above it was cut",
    "mixed_down": "have several channels, which were averaged",
    "colour_dropped": "have colours that were read as grey; set datamodule.transforms.*.channels=3 to keep them",
    "frames_dropped": "are animated or have several pages, of which the first was read",
    "transparent": "have transparent parts, which were laid on white",
    "dark": "have 16 bits per channel but use few of them, and look black; set datamodule.transforms.*.max_value",
    "clipped": "have values above datamodule.transforms.*.max_value, which were read as it; raise it",
}


def data_notes(results: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each kind of row that could not be read completely, or was changed.

    Args:
        results: Metric name to value, with the counts `data/...`.
    """
    found = []
    if results.get("data/faulty_rows"):
        found.append(f"{count_rows(results['data/faulty_rows'])} not as they should be: see errors.csv")
    if results.get("data/no_input"):
        found.append(f"{count_rows(results['data/no_input'])} without any input: neither learnt nor measured")
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
            found.append(f"{what}: {count_rows(count).removesuffix(' is').removesuffix(' are')} {NOTES[kind]}")
    return found


def count_rows(count: int) -> str:
    """Return "1 row is" or "N rows are"."""
    return "1 row is" if count == 1 else f"{count} rows are"


def table_rows(results: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a table of test metrics, without those of single classes. Those of baselines come last.

    Args:
        results: Metric name to value.
        prefix: Name of the head and a slash; "" if the model has one head.

    Returns:
        Section, such as test[audio], to metric to value.
    """
    rows: dict[str, dict[str, Any]] = {}
    for logged, value in results.items():
        name = logged
        if logged.startswith("baseline/test["):  # baseline/test[audio]/accuracy is of the row baseline[audio]
            name = logged.replace("/test", "", 1)
        place, _, metric = name.partition("/")
        metric = metric.removeprefix(prefix)
        many = "/" in metric or (metric.endswith(("_macro", "_micro", "_weighted")) and metric != "f1_macro")
        many |= metric.startswith("chance@") and metric != "chance@1"  # k / rows, which stand beside it
        if place.startswith(("test", "baseline[")) and name == f"{place}/{prefix}{metric}" and not many:
            rows.setdefault(place, {})[metric] = value
    return rows
