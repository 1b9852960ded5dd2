from typing import NamedTuple

import pytest
import torch
from tasks.test_supervised import build_model, make_batch

from mm.explain.influence import dead, influence
from mm.heads import Head
from mm.predictions import Categorical, Prediction


def labelled():
    batch = make_batch(12)
    return batch._replace(targets={"digit": batch.targets["digit"]})


def test_rows_change_and_loss_are_those_of_leaving_the_input_out():
    model, batch = build_model().eval(), labelled()
    found = influence(model, batch)
    both = batch.masks["right"][:, 0]
    assert found["left"].rows == found["right"].rows == int(both.sum())
    with torch.no_grad():
        whole = model(batch.inputs, batch.masks).predictions["digit"].logits[both]
        masks = batch.masks | {"right": torch.zeros_like(batch.masks["right"])}
        without = model(batch.inputs, masks).predictions["digit"].logits[both]
    target = batch.targets["digit"][both]
    rise = torch.nn.functional.cross_entropy(without, target) - torch.nn.functional.cross_entropy(whole, target)
    assert found["right"].loss == pytest.approx(float(rise), abs=1e-5)
    assert found["right"].change == pytest.approx(float((whole - without).norm() / whole.norm()), rel=1e-4)
    assert found["left"].gradient + found["right"].gradient == pytest.approx(1)
    assert not dead(found)


def test_an_input_that_nothing_reads_is_dead():
    model = build_model()
    with torch.no_grad():
        next(p for p in model.fusion.parameters() if p.dim() == 2)[:, 8:16] = 0  # of the fusion's first layer: right's
    found = influence(model, labelled())
    assert found["right"].gradient < 1e-6
    assert list(dead(found)) == ["right"]


class HalvesFields(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


class Halves(Prediction, HalvesFields):
    """A prediction of two tensors."""


class TwoTensors(Head):
    """A head whose prediction is told in two tensors."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, fused, target=None):
        logits = self.head(fused, target).logits
        return Halves(logits[:, :1], logits[:, 1:])

    def loss(self, prediction, target, fused):
        return self.head.loss(Categorical(torch.cat(prediction, 1)), target, fused)


def test_predictions_of_several_tensors_count_as_one():
    model, batch = build_model().eval(), labelled()
    wanted = influence(model, batch)
    model.heads["digit"] = TwoTensors(model.heads["digit"])
    for name, found in influence(model, batch).items():
        assert found == pytest.approx(wanted[name], rel=1e-5)


def test_the_gradient_is_that_of_rows_with_several_inputs():
    model, batch = build_model().eval(), labelled()
    both = batch.masks["right"][:, 0] & batch.masks["left"][:, 0]
    assert 0 < both.sum() < len(both)
    inputs, masks = ({name: x[both] for name, x in part.items()} for part in (batch.inputs, batch.masks))
    rows = batch._replace(inputs=inputs, masks=masks, targets={"digit": batch.targets["digit"][both]})
    wanted = influence(model, rows)
    for name, found in influence(model, batch).items():
        assert found.gradient == pytest.approx(wanted[name].gradient, rel=1e-4)
