"""MovieLens: who rated which film when, and what the films are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mm.cells.classes import sort_classes
from mm.data.columns import read_part
from mm.data.module import DataModule
from mm.data.readers.files import read_cells
from mm.data.sources import Source, make_table
from mm.data.table import Cells, Table
from mm.types import TargetData

INPUTS: dict[str, dict[str, Any]] = {
    "user": {"column": [{"column": "userId", "kind": "category"}], "modality": "tabular"},
    "history": {"column": [{"column": "history", "kind": "list"}], "modality": "tabular"},
    "item": {"column": [{"column": "movieId", "kind": "category"}], "modality": "tabular"},
    "genres": {"column": [{"column": "genres", "kind": "list"}], "modality": "tabular"},
    "title": {"column": "title", "modality": "text"},
}
IDS = ("movieId", "userId")
COLUMNS = {"ratings.csv": ("userId", "movieId", "rating", "timestamp"), "movies.csv": ("movieId", "title", "genres")}


class MovieLensDataModule(DataModule):
    """A row per rating: the user, the last films before it, and the film; of each user the last one is for the test.

    The last but one validates. Ratings of one second are in an order drawn by `data_seed`. Beside them validation and
    test each have a row for every film of movies.csv, rated or not, without a user: what a ranking ranks.
    path: a folder with ratings.csv and movies.csv; history: how many films; targets: name -> movieId, userId or rating,
    or None; the first two have a class for everyone that the files have.
    Errors: ValueError where the files are not there, lack a column, or rate a film that is none.
    """

    def __init__(self, path: str, history: int, targets: Mapping[str, str | None], data_seed: int, **shared: Any):
        super().__init__(**shared)
        if history < 1:
            raise ValueError(f"datamodule.history: got {history}, wanted at least 1 film")
        self.path = Path(path)
        self.history = history
        self.target_columns = {name: column for name, column in targets.items() if column is not None}
        for name, column in self.target_columns.items():
            if column not in (*IDS, "rating"):
                raise ValueError(f"datamodule.targets.{name}: got '{column}', wanted {', '.join(IDS)} or rating")
        self.data_seed = data_seed

    def read(self) -> Table:
        ratings, movies = (self.file(name) for name in COLUMNS)
        cells = interactions(ratings, movies, self.history, self.data_seed)
        add_candidates(cells, movies)
        if not self.trained:
            every = {"movieId": movies["movieId"], "userId": ratings["userId"]}
            for name, column in self.target_columns.items():
                if column in every:
                    self.known[name] = TargetData(kind="class", classes=tuple(sort_classes(set(every[column]))))
        columns = {"inputs": INPUTS, "targets": self.target_columns, "id": "id", "split": "split"}
        return make_table([read_part(cells, self.path, columns, self)], [Source(str(self.path))], self)

    def file(self, name: str) -> Cells:
        """Errors: ValueError where it is not there, or lacks a column."""
        path = self.path / name
        if not path.is_file():
            raise ValueError(
                f"movielens: no file {path}; put GroupLens' {', '.join(COLUMNS)} into {self.path.name}/ of a folder, "
                "and name that with paths.data=FOLDER or MM_DATA=FOLDER"
            )
        cells = read_cells(path)
        for column in COLUMNS[name]:
            if column not in cells:
                raise ValueError(f"{path}: no column '{column}'; there are {', '.join(cells)}")
        return cells


def interactions(ratings: Cells, movies: Cells, history: int, seed: int) -> Cells:
    """Ratings, user by user and in the order of time, each with the films that the user rated before."""
    about = dict(zip(movies["movieId"], zip(movies["title"], map(genres, movies["genres"]))))
    unknown = next((movie for movie in ratings["movieId"] if movie not in about), None)
    if unknown is not None:
        raise ValueError(f"ratings.csv: rates the film {unknown}, which movies.csv does not have")
    users, user = np.unique(ratings["userId"], return_inverse=True)
    time = np.array(ratings["timestamp"], dtype=np.int64)
    order = np.lexsort((np.random.default_rng(seed).random(len(user)), time, user))
    ends = np.bincount(user).cumsum()
    cells: Cells = {name: [] for name in ("id", "split", "userId", "history", "movieId", "title", "genres", "rating")}
    for name, begin, end in zip(users.tolist(), [0, *ends], ends):
        films = [ratings["movieId"][row] for row in order[begin:end]]
        for place, row in enumerate(order[begin:end].tolist()):
            split = {len(films) - 1: "test", len(films) - 2: "val"}.get(place, "train")
            film = films[place]
            before = films[max(0, place - history) : place]
            told = (f"{name}-{film}", split, name, before, film, *about[film], ratings["rating"][row])
            for column, cell in zip(cells.values(), told, strict=True):
                column.append(cell)
    return cells


def add_candidates(cells: Cells, movies: Cells) -> None:
    """Every film without a user, once for validation and once for the test."""
    for split in ("val", "test"):
        for film, title, kinds in zip(movies["movieId"], movies["title"], movies["genres"]):
            told = (f"{split}-{film}", split, None, None, film, title, genres(kinds), None)
            for column, cell in zip(cells.values(), told, strict=True):
                column.append(cell)


def genres(cell: str) -> list[str]:
    """Of a film; perhaps none."""
    return [] if cell == "(no genres listed)" else cell.split("|")
