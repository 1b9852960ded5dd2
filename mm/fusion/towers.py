"""Fusion of groups of inputs (towers), such as those of users and items, which are compared only after their fusion."""

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
    """Names of the inputs of a tower, and the fusion of these inputs; None for a tower of one input."""

    inputs: list[str]
    fusion: nn.Module | None


class IdentityFusion(Configurable, nn.Module):
    """Return the Features of the only input unchanged."""

    def forward(self, features: dict[str, Features]) -> Features:
        (only,) = features.values()
        return only


class TowerFusion(Configurable, nn.Module, Towered):
    """Fuse the inputs of each tower separately, into one token per tower (two-tower model, Yi et al. 2019).

    A tower is a group of inputs. Its token is the pooled vector of its fusion, and is absent if all inputs of the tower
    are absent. The token of a tower does not depend on the other towers. The vectors of items can therefore be computed
    once and be compared with the vector of any user (`task=contrastive`). The pooled vector, which heads read, combines
    all towers.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        towers: Tower name to `{inputs: [...], fusion: ...}`, such as {user: {inputs: [age, history], fusion: ...},
            item: {inputs: [title]}}; a tower of one input needs no fusion. None: each input is a tower.
        combine: Pooled vector: `mean`, `sum` or `product` of the present towers, or `mlp`, an MLP on the concatenated
            tokens of all towers and, if there are two towers, on their product as well (He et al. 2017).

    Raises:
        ValueError: If an input is unknown or not in exactly one tower, or if an option is unknown.
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
        """Fuse the Features of each input, by name, into Features with one token per tower, (B, towers, D)."""
        each = [tower({n: features[n] for n in self.inputs[name]}) for name, tower in self.towers.items()]
        mask = torch.stack([f.mask.any(1) for f in each], dim=1)  # (B, towers)
        tokens = torch.stack([f.pooled for f in each], dim=1) * mask.unsqueeze(-1)
        position = torch.full((*mask.shape, 2), 0.5, device=mask.device)
        return Features(tokens, mask, self.pool(tokens, mask), position)

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled vectors (B, D), with zeros for rows without any tower.

        Args:
            tokens: One token per tower, (B, towers, D).
            mask: Whether each row has each tower, (B, towers).
        """
        if self.combine == "product":
            return product(tokens, mask)
        if self.mlp is None:
            return reduce_present(tokens, mask, self.combine)
        both = [product(tokens, mask)] if tokens.shape[1] == 2 else []
        return self.mlp(torch.cat([tokens.flatten(1), *both], dim=1)) * mask.any(1, keepdim=True)


def product(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the elementwise product of the present towers, (B, D), with zeros for rows without any tower.

    Args:
        tokens: One token per tower, (B, towers, D).
        mask: Whether each row has each tower, (B, towers).
    """
    return torch.where(mask.unsqueeze(-1), tokens, 1.0).prod(1) * mask.any(1, keepdim=True)


def check_towers(inputs: Sequence[str], towers: Mapping[str, Mapping[str, Any]]) -> dict[str, TowerSpec]:
    """Validate the towers of a config and return them by name.

    Raises:
        ValueError: If a tower is incomplete or has an unknown key, or if an input is not in exactly one tower.
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
