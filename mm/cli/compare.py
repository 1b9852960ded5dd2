"""Rank the runs of a folder, with mean and deviation over seeds, splits and folds.

mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss] [average=datamodule.path]: of a folder of runs, or of some
runs; the first metric ranks. Runs of different verbs, or on different data, are ranked apart. Runs that differ only in
seeds or folds are averaged (datamodule.columns.split; keys that end in fold, such as datamodule.test_fold; the number
of a fold in datamodule.path, such as fold_1.csv), and those that differ in the keys that `average` names.
"""

from pathlib import Path

from mm.cli._render import print_ranking
from mm.cli._verb import split_names
from mm.messages import plain
from mm.runs.compare import compare

USAGE = "usage: mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss] [average=datamodule.path]"


def main(argv: list[str]) -> None:
    """Compare, and print a table for each verb and data set."""
    folders = [word for word in argv if "=" not in word or Path(word).is_dir()]  # a sweep may be called lr=0.1
    options = dict(word.split("=", 1) for word in argv if word not in folders)
    if not folders or set(options) - {"metrics", "average"}:
        raise ValueError(USAGE)
    report = compare(list(dict.fromkeys(folders)), **{key: split_names(value) for key, value in options.items()})
    for ranking in report.rankings:
        if len(report.rankings) > 1:
            print(f"{plain(ranking.kind)}:")
        print_ranking(ranking)
    if report.unfinished:
        print(f"not finished: {', '.join(map(plain, report.unfinished))}")
