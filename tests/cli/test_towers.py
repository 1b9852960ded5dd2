"""Two towers from a table of ratings to a ranking of all films, beside popularity."""

import csv
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

import mm as package

SMALL = ["experiment=movielens", "trainer.accelerator=cpu", "model.embed_dim=16", "datamodule.batch_size=64"]
SMALL += [f"model.encoders.{name}.embed_dim=16" for name in ("user", "history", "item", "genres", "title")]
SMALL += ["datamodule.num_workers=0"]

COLUMNS = ("embedding", "source")


@pytest.fixture
def films(tmp_path):
    """Users like one of three kinds, which their history tells."""
    draw = random.Random(0)
    folder = tmp_path / "ml_latest_small"
    folder.mkdir()
    with (folder / "movies.csv").open("w", newline="") as file:
        rows = [(i, f"{'abc'[i % 3]} film {i} (2000)", "Horror" if i % 2 else "Comedy|War") for i in range(60)]
        csv.writer(file).writerows([("movieId", "title", "genres"), *rows])
    with (folder / "ratings.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(("userId", "movieId", "rating", "timestamp"))
        for user in range(60):
            kind = [i for i in range(60) if i % 3 == user % 3]
            for time, film in enumerate(draw.sample(kind, 12)):
                write.writerow((user, film, draw.randint(1, 5), time))
    return tmp_path


def test_learns_ranks_and_serves(mm, films):
    run = mm("train", *SMALL, f"paths.data={films}", "run=towers", "trainer.max_epochs=6", "task.optimizer.lr=0.03")
    assert run.status == 0, run.err
    # 20 films of a kind, of which 11 were had: one that knows the kind finds all among its first 10
    assert run.metrics["test[user->item]/rows"] == 60
    assert run.metrics["test/recall@10"] > 0.6 > 2 * run.metrics["test[user->item]/chance@10"]
    assert 0 < run.metrics["test/ndcg@10"] < run.metrics["test/recall@10"]
    loaded = package.load(run.folder / "model")
    batch = loaded.read([{"item": {"movieId": "3"}, "title": "a film 3 (2000)"}, {"user": {"userId": "3"}}])
    fused = loaded.model(batch.inputs, batch.masks).fused
    assert fused.mask.tolist() == [[False, True], [True, False]]
    measured = mm("evaluate", "checkpoint=outputs/towers/model", "datamodule=movielens", f"paths.data={films}")
    assert measured.status == 0, measured.err
    ranked = {name: value for name, value in run.metrics.items() if name.startswith("test[user->item]")}
    assert "test[user->item]/ndcg@10" in ranked
    for name, value in ranked.items():  # the same ranking, without what each user had before
        assert measured.metrics[name] == pytest.approx(value, abs=1e-6), name


def test_a_users_vector_finds_the_films_of_its_kind(mm, films):
    """What was aligned are the towers: theirs are the vectors that are written and searched."""
    train = [*SMALL, f"paths.data={films}", "run=towers", "trainer.max_epochs=6", "task.optimizer.lr=0.03"]
    assert mm("train", *train).status == 0
    model = "checkpoint=outputs/towers/model"
    wrote = mm("embed", model, "datamodule=movielens", f"paths.data={films}", "split=all", "run=e")
    assert wrote.status == 0, wrote.err
    table = pq.read_table("outputs/e/embeddings.parquet").to_pylist()
    assert set(table[0]) == {"id", "row", "embedding", *(f"{t}/{w}" for t in ("user", "item") for w in COLUMNS)}
    ran = mm("search", model, "index=e", 'query={"userId": "4"}', "input=user", "among=item", "k=200")
    assert ran.status == 0, ran.err
    assert "may mean nothing" not in ran.err
    found = [line.split("│") for line in ran.out.splitlines() if line.startswith("│")]
    loaded = package.load("outputs/towers/model")
    batch = loaded.read([{"user": {"userId": "4"}}])
    vector = loaded.model(batch.inputs, batch.masks).fused.tokens[0, 0].detach()
    near = np.array([row["item/embedding"] for row in table]) @ (vector / vector.norm()).numpy()
    assert [float(cells[4]) for cells in found] == pytest.approx(sorted(near, reverse=True)[:200], abs=2e-4)
    kinds = [re.search(r"([abc]) film", cells[5])[1] for cells in found[:50]]  # type: ignore[index]
    assert kinds.count("b") > 40  # user 4 likes the second kind


def test_a_head_on_both_towers(mm, films):
    args = [
        "task=supervised",
        "model/heads=regression",
        "datamodule.targets.target=rating",
        "datamodule.targets.item=null",
        "datamodule.targets.user=null",
    ]
    args += ["~task.label", "~task.group", "~task.retrieval", "~task.loss", "monitor.metric=val/rmse"]
    run = mm("train", *SMALL, *args, f"paths.data={films}", "model.fusion.combine=mlp", "trainer.max_epochs=1")
    assert run.status == 0, run.err
    assert run.metrics["test/rows"] == 60


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["task.label=null"], "task.loss.logq_correction counts items by their label: set task.label"),
        (["task.label=null", "task.loss.logq_correction=false"], "task.retrieval counts items by their label"),
        (["task.group=usr"], "task.group: got 'usr', the data has item, user; did you mean 'user'"),
        (["model.fusion.combine=mlp"], "compares towers before they are combined"),
        (["model.fusion.towers.item.inputs=[item,genres]"], "the input 'title' is in 0 of user, item"),
        (["task.zero_shot.target=item"], "zero_shot: the model aligns towers of inputs"),
        (['monitor.metric="val[item->user]/recall@10"'], "monitor.metric: got"),
    ],
)
def test_mistakes(mm, films, args, said):
    run = mm("train", *SMALL, *args, f"paths.data={films}", "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err
