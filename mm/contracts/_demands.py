"""Building blocks of the contract checks: comparisons, torch.export, torch.compile and gradients."""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mm.types import Features

Result = tuple[str, str | None]  # name of the check, and its error message or None

TOLERANCE = 1e-4
ROWS = 4


# Attribute names that mm uses in some of its classes. In a user's part they are ordinary data and must be ignored.
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
    "confidences": [0.5],
    "events": ["a", "b"],
    "get_config": "mine",
    "needs": 3,
    "prediction_sets": "many",
    "strata": [1, 2],
    "temper": "calm",
    "variable": "x",
    "with_confidence": True,
}


def give_attributes(part: Any) -> None:
    """Set attributes of a part to values that `mm` must ignore, unless the part has attributes of these names.

    `mm` uses these names in some of its own classes. A user's part may use them for other data, which must not change
    the result of any check.
    """
    known = set(dir(part))
    for name, value in HOSTILE.items():
        if name not in known:
            setattr(part, name, value)


def run(checks: dict[str, Callable[[], None]]) -> list[Result]:
    """Run all checks in order and return the results; the message of a failed check is that of its exception.

    Args:
        checks: Name to check: a function that raises an exception if the check fails.
    """
    results: list[Result] = []
    for name, check in checks.items():
        try:
            check()
            results.append((name, None))
        except Exception as error:
            results.append((name, (str(error) or repr(error)).strip()))
    return results


def demand(condition: bool | Tensor, message: str) -> None:
    """Raise an AssertionError unless a condition is true."""
    if not condition:
        raise AssertionError(message)


def same(got: Tensor, wanted: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Raise an AssertionError unless two tensors have the same shape and values.

    Args:
        got: The tensor to check.
        wanted: The expected tensor.
        what: Name of the tensor, for the message.
        tolerance: Largest allowed absolute difference.
    """
    demand(got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    distance = (got.double() - wanted.double()).abs().max().item() if got.numel() else 0.0
    demand(distance <= tolerance, f"{what}: differs by {distance:.2g}, wanted at most {tolerance:.0e}")


def same_features(got: Features, wanted: Features, what: str) -> None:
    """Raise an AssertionError unless two Features agree, except for the padding of their tokens."""
    same(got.mask.sum(1), wanted.mask.sum(1), f"{what}: number of real tokens per row")
    same(got.tokens[got.mask], wanted.tokens[wanted.mask], f"{what}: real tokens")
    same(got.position[got.mask], wanted.position[wanted.mask], f"{what}: positions of real tokens")
    same(got.pooled, wanted.pooled, f"{what}: pooled")


def shapes(f: Features, rows: int, width: int) -> None:
    """Raise an AssertionError unless `f` is Features of the right shapes, data types and value ranges.

    Args:
        f: The output of an encoder or a fusion.
        rows: Expected number of rows B.
        width: Expected width D.
    """
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
    """Raise an AssertionError unless absent rows have no tokens and zero pooled vectors, and all values are finite.

    Args:
        f: The output of an encoder or a fusion.
        present: Whether each row is present, (B,) bool.
    """
    demand(f.tokens.isfinite().all() and f.pooled.isfinite().all(), "not finite where a row is absent")
    demand(not f.mask[~present].any(), "mask: True in an absent row")
    demand(not f.pooled[~present].any(), "pooled: not zero in an absent row")


def gradients(module: nn.Module, loss: Callable[[Any], Tensor]) -> None:
    """Raise an AssertionError unless all trainable parameters of a module get a gradient.

    Tensors that require a gradient but are not parameters also fail, because no optimizer would train them.

    Args:
        module: The module, which is copied.
        loss: Function from the module in training mode to a loss; it is called repeatedly, and the gradients of three
            calls are accumulated.
    """
    module = deepcopy(module).train()
    trainable = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    module.requires_grad_(False)
    once, again = leaves(loss(module)), leaves(loss(module))
    demand(
        not any(x is y for x in once for y in again),  # a tensor that is created in each pass is not a weight
        "a tensor that wants a gradient is no parameter, so that no optimizer would train it; make it an nn.Parameter "
        "of the module, several an nn.ParameterList: a plain list hides them",
    )
    if not trainable:
        return
    for _, p in trainable:
        p.requires_grad_(True)
    with torch.no_grad():
        for p in module.parameters():  # weights that start at zero, as in residual branches, block gradients
            p.add_(torch.randn_like(p) * 0.01)
    for _ in range(3):
        loss(module).backward()
    missing = [n for n, p in trainable if p.grad is None or not p.grad.any()]
    demand(not missing, f"no gradient reaches {', '.join(missing)}; drop what is unused when constructing")


def leaves(total: Tensor) -> list[Tensor]:
    """Return the leaf tensors of the autograd graph of `total` that require a gradient."""
    todo, seen, found = [total.grad_fn], set(), []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)  # only nodes that accumulate gradients have it
        found += [] if leaf is None else [leaf]
    return found


def flat(result: Any) -> list[Tensor]:
    """Return the tensors of a Tensor or of a NamedTuple of tensors."""
    return [result] if isinstance(result, Tensor) else list(result)


def exports(module: nn.Module, args: Sequence[Any], others: Sequence[Any]) -> None:
    """Raise an AssertionError unless the result of torch.export computes the same as the module.

    Args:
        module: The module.
        args: Arguments with which the module is exported.
        others: Arguments of the same shapes, with which the exported program is compared.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own LSTM and its caches
        program = torch.export.export(module, tuple(args)).module()
    for got, wanted in zip(flat(program(*others)), flat(module(*others)), strict=True):
        same(got, wanted, "exported program")


def compiles(module: nn.Module, args: Sequence[Any]) -> None:
    """Raise an error if torch.compile breaks the graph or changes the result of a module.

    Args:
        module: The module.
        args: Arguments of the module.
    """
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = torch.compile(module, fullgraph=True, backend="eager")(*args)
    torch._dynamo.reset()
    for got, wanted in zip(flat(result), flat(module(*args)), strict=True):
        same(got, wanted, "compiled module")


def weighted(f: Features) -> Tensor:
    """Return a random weighted sum of the pooled vectors and tokens, so that each of them gets a gradient."""
    return (f.pooled * torch.randn_like(f.pooled)).sum() + (f.tokens * torch.randn_like(f.tokens))[f.mask].sum()
