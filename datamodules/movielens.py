"""MovieLens: ratings of movies by users, with the titles and genres of the movies."""

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
    """MovieLens, with one row per rating: the user, the movies that the user rated before, and the rated movie.

    The last rating of each user is a test row, and the last but one a validation row. In addition, validation and test
    each have one row without a user for every movie of movies.csv, rated or not. These rows are the candidates that a
    recommender ranks.

    Args:
        path: Folder with ratings.csv and movies.csv.
        history: Maximum number of previously rated movies per row.
        targets: Target name to column: "movieId", "userId" or "rating"; None removes a target. "movieId" and "userId"
            have one class for each ID in the files.
        data_seed: Random seed of the order of ratings that a user gave in the same second.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a file is missing or lacks a column, if a rated movie is not in movies.csv, or if an argument has
            an unsupported value.
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
        """Read the cells of a file of the folder.

        Raises:
            ValueError: If the file is missing or lacks a column.
        """
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
    """Return one row per rating, sorted by user and then by time, with the movies which the user rated before it.

    Args:
        ratings: Column name to cells of ratings.csv.
        movies: Column name to cells of movies.csv.
        history: Maximum number of previously rated movies per row.
        seed: Random seed of the order of ratings of a user with the same timestamp.

    Returns:
        Column name to cells.

    Raises:
        ValueError: If a rated movie is not in movies.csv.
    """
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
    """Add a row without a user for every movie to validation and to test.

    Args:
        cells: Cells of the ratings, changed in place.
        movies: Column name to cells of movies.csv.
    """
    for split in ("val", "test"):
        for film, title, kinds in zip(movies["movieId"], movies["title"], movies["genres"]):
            told = (f"{split}-{film}", split, None, None, film, title, genres(kinds), None)
            for column, cell in zip(cells.values(), told, strict=True):
                column.append(cell)


def genres(cell: str) -> list[str]:
    """Return the genres of a movie from its cell, which may state that there are none."""
    return [] if cell == "(no genres listed)" else cell.split("|")
