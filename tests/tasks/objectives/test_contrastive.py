"""Beside CLIP's loss written out, two processes beside one, and what can't be compared."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import run_two

from mm.encoders.text.transformer import TextTransformer
from mm.encoders.vision.conv import VisionConv
from mm.fusion.sum import SumFusion
from mm.losses.info_nce import InfoNCE
from mm.losses.symile import Symile
from mm.metrics.retrieval import Retrieval
from mm.model import MultimodalModel
from mm.tasks.objectives.contrastive import ContrastiveObjective
from mm.tasks.objectives.masked_patch import MaskedPatchObjective
from mm.tasks.pretraining import Pretraining
from mm.types import Batch

INPUTS = ["text", "vision", "photo"]


def task(inputs: list[str] = INPUTS, loss=None, **more) -> Pretraining:
    torch.manual_seed(0)
    conv = partial(VisionConv, channels=1, widths=[4], depth=0, groups=2, pool="mean")
    text = TextTransformer(8, num_layers=1, num_heads=2, dropout=0.0, max_length=None, pool="mean")
    encoders = {"text": text, "vision": conv(), "photo": conv()}
    model = MultimodalModel({n: encoders[n] for n in inputs}, SumFusion(inputs=inputs), {}, 8)
    pair = partial(ContrastiveObjective, loss=loss or InfoNCE(), retrieval=Retrieval())
    return Pretraining(model, objectives={"pair": partial(pair, **more)})


def batch(rows: slice = slice(None)) -> Batch:
    """The last row is filler, the one before lacks its photo."""
    generator = torch.Generator().manual_seed(1)
    inputs = {"text": torch.randint(1, 257, (6, 5), generator=generator)}
    inputs |= {name: torch.rand(6, 1, 8, 8, generator=generator) for name in INPUTS[1:]}
    masks = {name: torch.ones(6, 5 if name == "text" else 1, dtype=torch.bool) for name in INPUTS}
    masks["photo"][4] = False
    row = torch.tensor([0, 1, 2, 3, 4, -1])
    return Batch({n: x[rows] for n, x in inputs.items()}, {n: m[rows] for n, m in masks.items()}, {}, row[rows], {})


def test_is_clips_loss_of_each_pair():
    made = task().requires_grad_(False)
    found = made.losses(batch())
    assert list(found) == ["pair/text+vision", "pair/text+photo", "pair/vision+photo"]
    features = made.model.encode(batch().inputs, batch().masks)
    for name, rows in zip(found, (5, 4, 4), strict=True):
        a, b = (F.normalize(features[n].pooled[:rows], dim=-1) for n in name.removeprefix("pair/").split("+"))
        logits, truth = 14.3 * a @ b.T, torch.arange(rows)
        wanted = (
            F.cross_entropy(logits, truth, reduction="sum") + F.cross_entropy(logits.T, truth, reduction="sum")
        ) / 2
        total, count, weight = found[name]
        assert float(total) == pytest.approx(float(wanted), rel=1e-4)
        assert int(count) == rows
        assert weight == pytest.approx(1 / 3)


def test_beside_hidden_patches_of_the_same_pictures():
    """What is aligned is whole: the same loss as without the other objective."""
    made = task(INPUTS[:2])
    both = Pretraining(
        made.model,
        objectives={
            "blocks": partial(MaskedPatchObjective, patch=4, ratio=0.5, weight=2.0),
            "pair": partial(ContrastiveObjective, loss=InfoNCE(), retrieval=Retrieval(), weight=0.5),
        },
    )
    found, alone = both.losses(batch()), made.losses(batch())
    assert list(found) == ["blocks", "pair"]
    assert [weight for _, _, weight in found.values()] == [2.0, 0.5]
    torch.testing.assert_close(found["pair"][0], alone["pair"][0])
    assert both.gathers


def test_a_loss_of_all_inputs_at_once_has_one_name():
    assert list(task(loss=Symile()).losses(batch())) == ["pair"]


def worker(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    made = task()
    found = made.losses(batch([slice(0, 2), slice(2, 6)][rank]))
    sum(total for total, _, _ in found.values()).backward()
    for x in (*(p.grad for p in made.parameters()), *(count for _, count, _ in found.values())):
        torch.distributed.all_reduce(x)
    grads = [p.grad for p in made.parameters()]
    torch.save((grads, [count for _, count, _ in found.values()]), folder / f"{rank}")
    made.replay(batch(slice(0, 2)))  # in this process alone: it waits for nobody
    torch.distributed.barrier()


def test_two_processes_have_the_gradient_of_one(tmp_path):
    run_two(worker, tmp_path)
    made = task()
    found = made.losses(batch())
    sum(total for total, _, _ in found.values()).backward()
    grads, counts = torch.load(tmp_path / "0", weights_only=True)
    for mine, (name, parameter) in zip(grads, made.named_parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert [int(count) for count in counts] == [5, 4, 4]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"inputs": ["vision"]}, "contrastive compares inputs, but there is only vision"),
        ({"loss": InfoNCE(logq_correction=True)}, "contrastive has no labels, by which items are counted"),
    ],
)
def test_what_can_not_be_compared_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        task(**how)


def test_an_input_that_is_none_is_refused():
    model = task(INPUTS[:2]).model
    with pytest.raises(ValueError, match="contrastive got the input 'sound', which is none of text, vision"):
        ContrastiveObjective(model, InfoNCE(), Retrieval(), ["text", "sound"])


def test_two_of_a_kind_on_one_input_are_refused_and_of_two_kinds_not():
    model = task(INPUTS[:2]).model
    one = partial(ContrastiveObjective, loss=InfoNCE(), retrieval=Retrieval())
    with pytest.raises(ValueError, match="'a' and 'b' both learn of the input 'text', and alike"):
        Pretraining(model, objectives={"a": one, "b": one})
