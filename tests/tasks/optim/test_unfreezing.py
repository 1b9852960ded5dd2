"""Which blocks learn in which epoch, by hand; and that leaving gradients out or dropping them is the same."""

import copy

import pytest
import torch
from torch import nn

from mm.tasks.optim.unfreezing import Unfreezing, can_cut


class Encoder(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))
        self.norm = nn.LayerNorm(2)

    def layer_order(self):
        order = [["embedding"], *([f"layers.{i}"] for i in range(len(self.layers)))]
        return [*order[:-1], [*order[-1], "norm"]]

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.norm(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({"text": Encoder(3), "other": Encoder(1)})
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.encoders["text"](x) + self.encoders["other"](x))


def learning(model):
    return {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def test_one_block_more_after_each_epoch():
    model = Model()
    unfreezing = Unfreezing(model, 1)
    found, told = [], []
    for epoch in range(6):
        told.append(unfreezing.begin(epoch, cut=True))
        found.append(learning(model))
    text, other = "encoders.text", "encoders.other"
    assert found[0] == {"head"}
    assert found[1] == found[0] | {f"{text}.layers.2", f"{text}.norm", f"{other}.layers.0", f"{other}.norm"}
    assert found[2] == found[1] | {f"{text}.layers.1", f"{other}.embedding"}
    assert found[3] == found[2] | {f"{text}.layers.0"}
    assert found[4] == found[3] | {f"{text}.embedding"} == found[5]
    assert told[0] == "epoch 0: 0 of 4 blocks of the encoders learn, 0 weights"
    assert told[1] == "epoch 1: 1 of 4 blocks of the encoders learn, 20 weights"
    assert told[5] is None


def test_every_few_epochs_and_from_where_a_run_goes_on():
    slow, model = Unfreezing(Model(), 3), Model()
    closed = []
    for epoch in range(7):
        slow.begin(epoch, cut=False)
        closed.append(len(slow.closed))
    assert closed[0] == closed[2] > closed[3] == closed[5] > closed[6]
    resumed = Unfreezing(model, 3)
    resumed.begin(6, cut=True)
    assert len(resumed.closed) == closed[6]


def test_what_is_frozen_stays_frozen():
    model = Model()
    model.encoders["text"].requires_grad_(False)
    Unfreezing(model, 1).begin(9, cut=True)
    assert not any(name.startswith("encoders.text") for name in learning(model))
    model.encoders.requires_grad_(False)
    with pytest.raises(ValueError, match="task.gradual_unfreeze: task.freeze leaves nothing"):
        Unfreezing(model, 1)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"task.gradual_unfreeze: got {wrong}, wanted whole epochs"):
            Unfreezing(Model(), wrong)


@pytest.mark.parametrize("fused", [True, False])
def test_left_out_or_dropped_gradients_are_the_same_and_what_is_closed_stays(fused):
    weights = []
    for cut in (True, False):
        model = Model()
        unfreezing = Unfreezing(model, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
        states = []
        for epoch in range(5):
            unfreezing.begin(epoch, cut)
            before = copy.deepcopy(model.state_dict())
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.arange(5)).square().sum().backward()
                unfreezing.drop()
                optimizer.step()
            closed = {id(p) for p in unfreezing.closed}
            for name, p in model.named_parameters():
                assert torch.equal(p, before[name]) == (id(p) in closed), (epoch, name)
            states.append(copy.deepcopy(model.state_dict()))
        weights.append(states)
    for one, two in zip(*weights):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_processes_compute_every_gradient():
    assert can_cut(Model())
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert not can_cut(nn.parallel.DistributedDataParallel(Model()))
    finally:
        torch.distributed.destroy_process_group()
