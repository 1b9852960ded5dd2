"""`mm.build` takes parts by name, as objects, and as classes into which the facts of the data are filled."""

from functools import partial

import pytest
import torch

import mm
from mm.encoders import TextTransformer
from mm.fusion import GatedFusion, SumFusion, TransformerFusion
from mm.heads import ClassificationHead

ROWS = [{"text": f"press {n}", "mood": ("good", "bad")[n % 2]} for n in range(20)]


@pytest.fixture(scope="module")
def spec():
    return mm.Manifest(ROWS, targets=["mood"], num_workers=0).spec


def test_facts_of_the_data_are_filled_into_classes(spec):
    model = mm.build(
        spec,
        text=partial(TextTransformer, 16, num_layers=1, num_heads=2, max_length=8),
        fusion=GatedFusion,
        mood=partial(ClassificationHead, label_smoothing=0.1),
        embed_dim=24,
    )
    assert model.encoders["text"].embed_dim == 16
    assert isinstance(model.fusion, GatedFusion)
    head = mm.configurable.recorded_arguments(model.heads["mood"])
    assert (head["classes"], head["embed_dim"], head["label_smoothing"]) == (["bad", "good"], 24, 0.1)


def test_a_class_and_its_name_give_the_same_weights(spec):
    by_name = mm.build(spec, text="hashed_ngrams", fusion="transformer", overrides=["model.fusion.num_layers=1"])
    by_class = mm.build(spec, text="hashed_ngrams", fusion=partial(TransformerFusion, num_layers=1))
    weights = by_class.state_dict()
    assert by_name.state_dict().keys() == weights.keys()
    for name, weight in by_name.state_dict().items():
        torch.testing.assert_close(weights[name], weight, atol=0, rtol=0)


def test_a_model_of_classes_is_trained_saved_and_loaded(spec, tmp_path):
    data = mm.Manifest(ROWS, targets=["mood"], num_workers=0)
    model = mm.build(spec, text="hashed_ngrams", fusion=SumFusion, embed_dim=8)
    trained = mm.train(model, data, max_steps=1, progress_bar=False, overrides=["trainer.accelerator=cpu"]).model
    trained.save(tmp_path / "model")
    assert mm.load(tmp_path / "model").predict({"text": "press 3"}).keys() == {"mood"}


def test_an_argument_without_a_value_is_named(spec):
    with pytest.raises(
        ValueError, match=r"model.encoders.text: Linear needs in_features, out_features, which the data"
    ):
        mm.build(spec, text=torch.nn.Linear)
    with pytest.raises(ValueError, match=r"pass functools.partial\(Linear, out_features=...\)"):
        mm.build(spec, text=partial(torch.nn.Linear, 3))


def test_an_argument_too_many_is_an_error_and_not_dropped(spec):
    with pytest.raises(TypeError, match="too many positional arguments"):
        mm.build(spec, text=partial(torch.nn.ReLU, False, 3))


def test_metrics_in_the_wrong_place_name_the_right_one(spec):
    metric = "metrics.parity={_target_: my_metrics.Parity}"
    with pytest.raises(
        ValueError, match=r"a model has no metrics; pass this override to mm.train\(model, data, .*allow="
    ):
        mm.build(spec, text="hashed_ngrams", overrides=[f"+model.heads.mood.{metric}"])
    model = mm.build(spec, text="hashed_ngrams", embed_dim=8)
    with pytest.raises(ValueError, match=r"^task.metrics: nothing reads it, .* \+model.heads.HEAD.metrics.NAME="):
        mm.lightning_module(model, spec, overrides=["+task.metrics.mood.parity={_target_: my_metrics.Parity}"])
