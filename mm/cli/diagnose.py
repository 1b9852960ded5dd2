"""Diagnose a run: the batches whose loss was not finite, and the influence of each input on the predictions.

mm diagnose run=NAME [paths.outputs=outputs] [rows=256] [allow=my_pkg]: NAME may be the run's folder as well; rows:
how many of the training split inputs are weighed on; allow: packages of your own whose classes the run's config may
name.
"""

from pathlib import Path

from mm.cli._import_path import add_working_directory
from mm.cli._render import print_diagnosis
from mm.cli._verb import parse_words, split_names

DEFAULTS = {"run": "", "paths.outputs": "outputs", "rows": "256", "allow": ""}
USAGE = "usage: mm diagnose run=NAME [paths.outputs=outputs] [rows=256] [allow=my_pkg]"


def main(argv: list[str]) -> None:
    given = parse_words(argv, DEFAULTS, USAGE)
    if not given["run"] or not given["rows"].isdigit() or not int(given["rows"]):
        raise ValueError(USAGE)
    folder = Path(given["run"])
    if not (folder / "config.yaml").is_file():
        folder = Path(given["paths.outputs"]) / given["run"]
    add_working_directory()

    from mm.assembly.diagnosis import diagnose

    print_diagnosis(diagnose(folder, rows=int(given["rows"]), allow=split_names(given["allow"])))
