"""What the checks are made of: run them, compare, export, compile, look for gradients."""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mm.types import Features

Result = tuple[str, str | None]  # name of the check, and why it failed or None

TOLERANCE = 1e-4
ROWS = 4


# Names that mean something to some part of mm; as data of a part of the user's own they must mean nothing.
HOSTILE: dict[str, Any] = {
    "architecture": "my own",
    "identity": 3,
    "reset_parameters": True,
    "token_embedding": "none",
    "towers": 2,
    "names": ["a"],
    "figure": "a.png",
    "compare": "both",
    "choices": ["a", "b"],
    "tempered": 0.5,
    "judge": "nobody",
    "revised": False,
    "nonconformity": 1.0,
    "region": "north",
    "align": "left",
    "about": "nothing",
}


def give_attributes(part: Any) -> None:
    """Give a part attributes whose names some part of mm knows, unless it has them: no check may come out otherwise."""
    known = set(dir(part))
    for name, value in HOSTILE.items():
        if name not in known:
            setattr(part, name, value)


def run(checks: dict[str, Callable[[], None]]) -> list[Result]:
    """Run every check, in order; whatever one raises is its message."""
    results: list[Result] = []
    for name, check in checks.items():
        try:
            check()
            results.append((name, None))
        except Exception as error:
            results.append((name, (str(error) or repr(error)).strip()))
    return results


def demand(condition: bool | Tensor, message: str) -> None:
    """Fail the running check unless `condition`."""
    if not condition:
        raise AssertionError(message)


def same(got: Tensor, wanted: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Fail unless both have one shape and differ by less than the tolerance."""
    demand(got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    distance = (got.double() - wanted.double()).abs().max().item() if got.numel() else 0.0
    demand(distance <= tolerance, f"{what}: differs by {distance:.2g}, wanted at most {tolerance:.0e}")


def same_features(got: Features, wanted: Features, what: str) -> None:
    """Fail unless the real tokens, their positions and the pooled vectors are the same."""
    same(got.mask.sum(1), wanted.mask.sum(1), f"{what}: number of real tokens per row")
    same(got.tokens[got.mask], wanted.tokens[wanted.mask], f"{what}: real tokens")
    same(got.position[got.mask], wanted.position[wanted.mask], f"{what}: positions of real tokens")
    same(got.pooled, wanted.pooled, f"{what}: pooled")


def shapes(f: Features, rows: int, width: int) -> None:
    """Fail unless `f` is Features of so many rows and such a width."""
    demand(isinstance(f, Features), f"returned {type(f).__name__}, wanted mm.types.Features")
    steps = f.tokens.shape[1]
    for name, wanted in {
        "tokens": (rows, steps, width),
        "mask": (rows, steps),
        "pooled": (rows, width),
        "position": (rows, steps, 2),
    }.items():
        got = tuple(getattr(f, name).shape)
        demand(got == wanted, f"{name}: shape {got}, wanted {wanted}")
    demand(f.mask.dtype == torch.bool, f"mask: dtype {f.mask.dtype}, wanted torch.bool")
    demand(f.tokens.is_floating_point() and f.pooled.is_floating_point(), "tokens and pooled: wanted floating point")
    demand(bool(((f.position >= 0) & (f.position <= 1)).all()), "position: outside 0..1")


def absence(f: Features, present: Tensor) -> None:
    """Fail unless the rows that are not present are empty and finite."""
    demand(f.tokens.isfinite().all() and f.pooled.isfinite().all(), "not finite where a row is absent")
    demand(not f.mask[~present].any(), "mask: True in an absent row")
    demand(not f.pooled[~present].any(), "pooled: not zero in an absent row")


def gradients(module: nn.Module, loss: Callable[[Any], Tensor]) -> None:
    """Fail unless exactly the trainable parameters of a copy of `module` get a gradient from three training losses."""
    module = deepcopy(module).train()
    trainable = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    module.requires_grad_(False)
    once, again = leaves(loss(module)), leaves(loss(module))
    demand(
        not any(x is y for x in once for y in again),  # what is made anew in each pass is no weight
        "a tensor that wants a gradient is no parameter, so that no optimizer would train it; make it an nn.Parameter "
        "of the module, several an nn.ParameterList: a plain list hides them",
    )
    if not trainable:
        return
    for _, p in trainable:
        p.requires_grad_(True)
    with torch.no_grad():
        for p in module.parameters():  # what starts at zero, such as a residual branch's last gain, stops the rest
            p.add_(torch.randn_like(p) * 0.01)
    for _ in range(3):
        loss(module).backward()
    missing = [n for n, p in trainable if p.grad is None or not p.grad.any()]
    demand(not missing, f"no gradient reaches {', '.join(missing)}; drop what is unused when constructing")


def leaves(total: Tensor) -> list[Tensor]:
    """The tensors at the ends of its graph, which want a gradient."""
    todo, seen, found = [total.grad_fn], set(), []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)  # only nodes that accumulate have one
        found += [] if leaf is None else [leaf]
    return found


def flat(result: Any) -> list[Tensor]:
    """The tensors of a Tensor or a NamedTuple of tensors."""
    return [result] if isinstance(result, Tensor) else list(result)


def exports(module: nn.Module, args: Sequence[Any], others: Sequence[Any]) -> None:
    """Fail unless torch.export from `args` gives what the module gives on `others`, of the same shapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own LSTM and caches there
        program = torch.export.export(module, tuple(args)).module()
    for got, wanted in zip(flat(program(*others)), flat(module(*others)), strict=True):
        same(got, wanted, "exported program")


def compiles(module: nn.Module, args: Sequence[Any]) -> None:
    """Fail where torch.compile breaks the graph."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = torch.compile(module, fullgraph=True, backend="eager")(*args)
    torch._dynamo.reset()
    for got, wanted in zip(flat(result), flat(module(*args)), strict=True):
        same(got, wanted, "compiled module")


def weighted(f: Features) -> Tensor:
    """A number that every part of the features moves."""
    return (f.pooled * torch.randn_like(f.pooled)).sum() + (f.tokens * torch.randn_like(f.tokens))[f.mask].sum()
