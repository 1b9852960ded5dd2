"""Towers: the inputs of each are fused by themselves, and meet at the end."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp
from mm.fusion.sum import reduce_present
from mm.types import Features, Towered

COMBINE = ("mean", "sum", "product", "mlp")


class TowerSpec(NamedTuple):
    """The inputs of a tower and the fusion of these; None for a tower of one input."""

    inputs: list[str]
    fusion: nn.Module | None


class IdentityFusion(Configurable, nn.Module):
    """Return the features of the only input."""

    def forward(self, features: dict[str, Features]) -> Features:
        (only,) = features.values()
        return only


class TowerFusion(Configurable, nn.Module, Towered):
    """Fuse the inputs of each tower separately; the result has one token for each tower (Yi et al. 2019).

    The token of a tower is the pooled vector of its fusion, absent where all inputs of the tower are. Nothing of one
    tower reaches another's token: the vectors of items can be computed once and compared with those of any user
    (`task=contrastive`). Heads read the pooled vector, which combines the towers.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        towers: Tower name to `{inputs: [...], fusion: ...}`, such as {user: {inputs: [age, history], fusion: ...},
            item: {inputs: [title]}}; a tower of one input needs no fusion. None: each input is a tower.
        combine: Pooled vector: `mean`, `sum` or `product` of the present towers, or `mlp` of all towers side by side
            and, of two towers, of their product (He et al. 2017).

    Raises:
        ValueError: If an input is in no tower, in two, or unknown, or an option is none of its values.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        towers: Mapping[str, Mapping[str, Any]] | None = None,
        combine: str = "mean",
    ):
        super().__init__()
        if combine not in COMBINE:
            raise ValueError(f"model.fusion.combine: got '{combine}', wanted one of {', '.join(COMBINE)}")
        specs = check_towers(inputs, {name: {"inputs": [name]} for name in inputs} if towers is None else towers)
        self.inputs = {name: tower.inputs for name, tower in specs.items()}
        self.towers = nn.ModuleDict({name: tower.fusion or IdentityFusion() for name, tower in specs.items()})
        self.combine = combine
        self.mlp = (
            mlp((len(specs) + (len(specs) == 2)) * embed_dim, embed_dim, embed_dim, 0.0) if combine == "mlp" else None
        )

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, towers, D)"""
        each = [tower({n: features[n] for n in self.inputs[name]}) for name, tower in self.towers.items()]
        mask = torch.stack([f.mask.any(1) for f in each], dim=1)  # (B, towers)
        tokens = torch.stack([f.pooled for f in each], dim=1) * mask.unsqueeze(-1)
        position = torch.full((*mask.shape, 2), 0.5, device=mask.device)
        return Features(tokens, mask, self.pool(tokens, mask), position)

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, towers, D), (B, towers) -> (B, D), zeros where no tower is present."""
        if self.combine == "product":
            return product(tokens, mask)
        if self.mlp is None:
            return reduce_present(tokens, mask, self.combine)
        both = [product(tokens, mask)] if tokens.shape[1] == 2 else []
        return self.mlp(torch.cat([tokens.flatten(1), *both], dim=1)) * mask.any(1, keepdim=True)


def product(tokens: Tensor, mask: Tensor) -> Tensor:
    """Of the towers that are present; zeros where there is none. (B, towers, D), (B, towers) -> (B, D)"""
    return torch.where(mask.unsqueeze(-1), tokens, 1.0).prod(1) * mask.any(1, keepdim=True)


def check_towers(inputs: Sequence[str], towers: Mapping[str, Mapping[str, Any]]) -> dict[str, TowerSpec]:
    """Return the towers of a config.

    Raises:
        ValueError: If a tower is incomplete, or an input is not in exactly one tower.
    """
    found = {}
    for name, given in towers.items():
        where = f"model.fusion.towers.{name}"
        for key in given:
            if key not in TowerSpec._fields:
                raise ValueError(f"{where}.{key}: nothing reads it, wanted inputs and fusion")
        members = list(given.get("inputs") or [])
        for one in members:
            if one not in inputs:
                raise ValueError(f"{where}.inputs: got '{one}', the data has {', '.join(inputs)}")
        fusion = given.get("fusion")
        if not members or (len(members) > 1 and fusion is None):
            raise ValueError(
                f"{where}: got the inputs {members} and fusion={fusion}, wanted at least one, and of several what "
                f"fuses them, as in +model/fusion@{where}.fusion=concat"
            )
        found[name] = TowerSpec(members, fusion)
    for one in inputs:
        count = sum(one in tower.inputs for tower in found.values())
        if count != 1:
            raise ValueError(
                f"model.fusion.towers: the input '{one}' is in {count} of {', '.join(found)}, wanted one; leave inputs "
                "out with datamodule.inputs"
            )
    return found
