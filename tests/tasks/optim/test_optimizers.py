"""Every optimizer yaml takes the rules' groups and lowers a loss."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import conf
from mm.tasks.optim.parameters import groups

FILES = sorted((Path(conf.__file__).parent / "task/optimizer").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_lowers_a_loss_and_leaves_no_decay_alone(file):
    make = instantiate(OmegaConf.load(file))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1))
    x = torch.randn(32, 4)
    y = x.sum(1, keepdim=True)
    optimizer = make(groups(model, make.keywords["lr"], 0.1, {r"^0\.": 0.5}, []))
    rates = {group["lr"] for group in optimizer.param_groups}
    assert rates == {make.keywords["lr"], 0.5 * make.keywords["lr"]}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}
    first = (model(x) - y).square().mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as trainer/default.yaml does
        optimizer.step()
    assert (model(x) - y).square().mean().item() < 0.8 * first
