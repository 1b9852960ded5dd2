"""Probes of frozen encoders from Python, beside scikit-learn's."""

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from mm.evaluation import ClassPrompts, FewShot, Probes, extract_embeddings, probe


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.csv")


@pytest.fixture(scope="module")
def model(path):
    return tiny.train_model(tiny.build_data(path), steps=5)


@pytest.fixture
def data(path):
    return tiny.build_data(path)


def encode(model, data, split, name):
    """Unit vectors of the rows of a split that have an input, in one batch, and their classes."""
    bound = data.bind(model.transforms)
    batch = bound.batch(bound.rows(split).tolist())
    with torch.no_grad():
        features = model.model.encoders[name](batch.inputs[name], batch.masks[name])
    present = batch.masks[name].any(1)
    return F.normalize(features.pooled, dim=-1)[present].double().numpy(), batch.targets["target"][present].numpy()


def test_vectors_are_the_encoder_s_own_in_batches_of_any_size(model, data):
    frozen = extract_embeddings(model.model, data.bind(model.transforms), "test")
    for name in ("text", "title"):
        vectors, _ = encode(model, data, "test", name)
        np.testing.assert_allclose(frozen.vectors[name][frozen.present[name]], vectors, atol=1e-6)
    assert frozen.row.tolist() == data.rows("test").tolist()
    assert not frozen.present["title"].all()


def test_probes_are_scikit_learn_s(model, data):
    probes = Probes(linear_probe="target", few_shot=FewShot(target="target", shots=[1, 1000], num_trials=2))
    report = probe(model, data, probes, device="cpu")
    for name in ("text", "title"):
        (x, label), (unseen, truth) = (encode(model, data, split, name) for split in ("train", "test"))
        nearest = NearestCentroid().fit(x, label).score(unseen, truth)
        assert report.metrics[f"test[{name}]/few_shot/prototype@1000"] == pytest.approx(nearest)
        assert report.metrics[f"test[{name}]/few_shot/prototype@1000_std"] == 0  # every draw takes all
        scaler = StandardScaler().fit(x)
        regression = LogisticRegression(max_iter=1000).fit(scaler.transform(x), label)
        expected = regression.score(scaler.transform(unseen), truth)
        assert report.metrics[f"test[{name}]/linear_probe_accuracy"] == pytest.approx(expected)
    assert report.metrics["data/rows"] == len(data.rows("test"))
    assert report.table().columns == ["", "test[text]", "test[title]", "test"]
    again = probe(model, data, probes, device="cpu")
    assert again.metrics == report.metrics
    assert probe(model, data, probes, device="cpu", seed=1).metrics != report.metrics


def test_prompts_are_compared_with_what_the_encoder_gives(model, data):
    prompts = ClassPrompts(
        target="target", templates=["it is {}"], class_names={"up": "good", "down": "bad", "side": "odd"}
    )
    report = probe(model, data, Probes(zero_shot=prompts), device="cpu")
    vectors, truth = encode(model, data, "test", "text")
    classes = []
    for word in ("bad", "odd", "good"):  # of down, side, up
        batch = model.read([{"text": f"it is {word}"}])
        with torch.no_grad():
            pooled = model.model.encoders["text"](batch.inputs["text"], batch.masks["text"]).pooled
        classes.append(F.normalize(pooled, dim=-1)[0].double().numpy())
    expected = ((vectors @ np.stack(classes).T).argmax(1) == truth).mean()
    assert report.metrics["test[text]/zero_shot_accuracy"] == pytest.approx(expected)
    assert report.metrics["test/zero_shot_chance"] == pytest.approx(1 / 3)


def test_mistakes_are_named(model, data, caplog):
    for probes, message in (
        (Probes(linear_probe="moods"), "linear_probe: got 'moods', the data has target"),
        (Probes(few_shot=FewShot(target="target", shots=[0])), r"few_shot.shots: got \[0\], wanted whole numbers"),
        (Probes(few_shot=FewShot(target="target", num_trials=0)), "few_shot.num_trials: got 0, wanted whole numbers"),
        (Probes(zero_shot=ClassPrompts(target="target", templates=["it is"])), "wanted one {} where the class stands"),
        (Probes(zero_shot=ClassPrompts(target="target", class_names={"x": "y"})), "no class 'x' in 'target'"),
    ):
        with pytest.raises(ValueError, match=message):
            probe(model, data, probes, device="cpu")
    with caplog.at_level("INFO", "mm"):
        probe(model, data, Probes(few_shot=FewShot(target="target", shots=[999], num_trials=1)), device="cpu")
    assert "of classes with fewer training rows than shots all are taken: down" in caplog.text
