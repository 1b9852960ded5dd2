"""What every encoder, fusion and head has to keep; the same checks serve our tests and `mm check`."""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mm.types import (
    ONCE,
    Aligned,
    Calibrated,
    Conformal,
    Features,
    InputSpec,
    Read,
    Spoken,
    TargetRead,
    TargetTransform,
    blank,
    labelled,
)

Result = tuple[str, str | None]  # name of the check, and why it failed or None

EXTRA = {"text": 7, "audio": 1007, "tabular": 3}  # steps of padding that must not change anything; no multiple of a hop
TOLERANCE = 1e-4
ROWS = 4
TOKENS = 5


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


# Encoders ------------------------------------------------------------------------------------------------------------


def random_input(spec: InputSpec, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Random raw tensors of one input, the first row full, with room for EXTRA below max_length. -> x, mask"""
    if spec.modality == "vision":
        height, width = spec.size or (32, 32)
        return torch.randn(rows, spec.channels or 3, height, width), torch.ones(rows, 1, dtype=torch.bool)
    longest = {"text": 12, "tabular": 2 * len(spec.sizes or ())}.get(spec.modality, (spec.sample_rate or 8000) // 2)
    if spec.max_length is not None:
        longest = min(longest, spec.max_length - EXTRA[spec.modality])
    length = torch.randint(max(1, longest // 2), longest + 1, (rows,))
    length[0] = longest
    mask = torch.arange(longest) < length.unsqueeze(1)
    if spec.modality == "tabular":
        return random_cells(spec, rows, longest) * mask.unsqueeze(-1), mask
    x = torch.randint(1, 257, (rows, longest)) if spec.modality == "text" else torch.randn(rows, longest) * 0.1
    for place, marker in enumerate((spec.markers or {}).values()):
        x[:, place] = marker
    return x * mask, mask


def random_cells(spec: InputSpec, rows: int, count: int) -> Tensor:
    """Of a table, columns in their order, the first row's all of them twice. -> (rows, count, 3)"""
    sizes = torch.tensor(spec.sizes)
    column = torch.randint(len(sizes), (rows, count)).sort(1).values
    column[0] = torch.arange(count) * len(sizes) // count
    place = (torch.rand(rows, count) * sizes[column]).long()
    number = torch.randn(rows, count) * (sizes[column] == 0)
    return torch.stack([column.float(), place.float(), number], dim=-1)


def lengthen(x: Tensor, extra: int) -> Tensor:
    """A sequence with more steps, of zeros. (B, T), or (B, T, k)"""
    return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, extra))


def refill(spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
    """`x` with other values where masked."""
    if spec.modality == "tabular":
        return torch.where(mask.unsqueeze(-1), x, random_cells(spec, *mask.shape))
    keep = mask if x.dim() == 2 else mask.view(-1, 1, 1, 1)
    return torch.where(keep, x, torch.randn_like(x) * 0.1 if x.is_floating_point() else torch.randint_like(x, 1, 257))


def check_encoder(encoder: Any) -> list[Result]:
    """All checks of an encoder, on random input of its InputSpec."""
    torch.manual_seed(0)
    encoder.eval()
    spec, width = encoder.input, encoder.embed_dim
    x, mask = random_input(spec)
    present = torch.tensor([True, False] * (ROWS // 2))
    some = mask & present.unsqueeze(1)

    def padding() -> None:
        wider, longer = (lengthen(t, EXTRA[spec.modality]) for t in (mask, x))
        padded = encoder(refill(spec, longer, wider), wider)
        same_features(padded, encoder(x, mask), "padded")

    def influence() -> None:
        before = encoder(x, mask)
        same_features(encoder(refill(spec, x, mask), mask), before, "with other filler in padding")
        after = encoder(refill(spec, x, some), some)
        same_features(
            Features(*(t[present] for t in after)), Features(*(t[present] for t in before)), "absent rows added"
        )
        demand(
            (encoder(refill(spec, x, mask & False), mask).pooled - before.pooled).abs().max() > 1e-6,
            "input has no influence",
        )

    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: shapes(encoder(x, mask), ROWS, width),
        "padding": padding,
        "absence": lambda: absence(encoder(refill(spec, x, some), some), present),
        "nobody": lambda: absence(encoder(x, mask & False), present & False),
        "influence": influence,
        "export": lambda: exports(encoder, (x, mask), (refill(spec, x, some), some)),
        "compile": lambda: compiles(encoder, (x, mask)),
    }
    if spec.modality == "vision":
        del checks["padding"]  # an image has no time axis
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(encoder, lambda m: weighted(m(*random_input(spec))))})


# Fusions -------------------------------------------------------------------------------------------------------------


def random_features(rows: int, steps: int, width: int, present: Tensor | None = None) -> Features:
    """Random Features with at least one real token in every row that is present."""
    length = torch.randint(1, steps + 1, (rows, 1))
    length[0] = steps
    mask = torch.arange(steps) < length
    if present is not None:
        mask = mask & present.unsqueeze(1)
    pooled = torch.randn(rows, width) * mask.any(1, keepdim=True)
    return Features(torch.randn(rows, steps, width), mask, pooled, torch.rand(rows, steps, 2))


def other_filler(f: Features) -> Features:
    """The same with other tokens and positions where masked."""
    keep = f.mask.unsqueeze(-1)
    tokens = torch.where(keep, f.tokens, torch.randn_like(f.tokens))
    return f._replace(tokens=tokens, position=torch.where(keep, f.position, torch.rand_like(f.position)))


def longer(f: Features) -> Features:
    """The same with seven more tokens, masked."""
    g = random_features(f.mask.shape[0], 7, f.tokens.shape[2])
    return Features(
        torch.cat([f.tokens, g.tokens], dim=1),
        torch.cat([f.mask, g.mask & False], dim=1),
        f.pooled,
        torch.cat([f.position, g.position], dim=1),
    )


def check_fusion(fusion: Any, inputs: Sequence[str], embed_dim: int) -> list[Result]:
    """All checks of a fusion, over every subset of absent inputs; one row per subset."""
    torch.manual_seed(0)
    fusion.eval()
    subsets = torch.tensor(list(product([True, False], repeat=len(inputs))))  # (2^n, n), the last row has nothing
    rows = len(subsets)

    def draw() -> dict[str, Features]:
        return {n: random_features(rows, 3 + i, embed_dim, subsets[:, i]) for i, n in enumerate(inputs)}

    features = draw()
    anchor: Any = getattr(fusion, "anchor", None)  # only fusions that keep one have it

    def influence() -> None:
        before = fusion(features)
        same_features(fusion({n: other_filler(f) for n, f in features.items()}), before, "with other filler")
        half = {n: Features(*(t[::2] for t in f)) for n, f in features.items()}
        same_features(fusion(half), Features(*(t[::2] for t in before)), "without the other rows")
        for i, name in enumerate(inputs):
            changed = fusion({**features, name: draw()[name]})
            moved = (changed.pooled - before.pooled).abs().amax(1) > 1e-6
            demand(moved[subsets[:, i]].all(), f"input '{name}' has no influence on pooled where it is present")
            demand(not moved[~subsets[:, i]].any(), f"input '{name}' has influence where it is absent")

    def anchored() -> None:
        fused = fusion(features)
        demand(anchor in inputs, f"anchor: got {anchor!r}, wanted one of {', '.join(inputs)}")
        demand(torch.equal(fused.mask, features[anchor].mask), "mask: not the anchor's")
        demand(torch.equal(fused.position, features[anchor].position), "position: not the anchor's")

    checks: dict[str, Callable[[], None]] = {
        "shapes": lambda: shapes(fusion(features), rows, embed_dim),
        "padding": lambda: same_features(
            fusion({n: longer(f) for n, f in features.items()}), fusion(features), "padded"
        ),
        "absence": lambda: absence(fusion(features), subsets.any(1)),
        "influence": influence,
        "export": lambda: exports(fusion, (features,), (draw(),)),
        "compile": lambda: compiles(fusion, (features,)),
    }
    if anchor is not None:
        checks["anchor"] = anchored
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(fusion, lambda m: weighted(m(draw())))})


# Heads ---------------------------------------------------------------------------------------------------------------


def examples(reads: TargetTransform) -> TargetRead:
    """What is learnt of its own examples, the second of ROWS rows unlabelled."""
    cells = [reads.examples[i % len(reads.examples)] for i in range(ROWS)]
    cells[1] = None
    return reads.learn(cells, np.ones(ROWS, dtype=bool), None)


def of_text(text: str) -> dict[str, Tensor]:
    """The meta of a text whose every token is a word."""
    words = list(re.finditer(r"\S+", text))
    return {
        "words": torch.arange(len(words)),
        "places": torch.tensor([word.span() for word in words]),
        "characters": torch.tensor([ord(letter) for letter in text]),
    }


def of_picture() -> dict[str, Tensor]:
    """The meta of a picture that is mirrored."""
    return {"frame": torch.tensor([100.0, 0, 0, 60]), "size": torch.tensor([100.0, 60])}


def tokens_of(reads: TargetTransform) -> tuple[Tensor, dict[str, Tensor]]:
    """Targets of the examples, and the meta of the inputs that they go with."""
    values = examples(reads).values
    if not isinstance(reads, Aligned):
        return pad_sequence(values, True, blank(values[0])) if isinstance(values, list) else values, {}
    pictures = reads.needs is not None and reads.needs[0] == "vision"
    metas = [of_picture() if pictures else of_text(reads.texts[i % len(reads.texts)]) for i in range(ROWS)]
    window = torch.zeros(1)
    targets = [reads.align(v, Read([window], False, [meta]))[0] for v, meta in zip(values, metas)]
    target = at_tokens(targets, blank(targets[0]))
    meta = {}
    for key in metas[0]:
        found = [one[key] for one in metas]
        once = key in ONCE
        meta[f"{reads.input}/{key}"] = (
            pad_sequence(found, batch_first=True) if once else at_tokens(found, -1 if key == "words" else 0)
        )
    return target, meta


def at_tokens(rows: Sequence[Tensor], fill: float) -> Tensor:
    """Of each row (T', ...), padded -> (B, TOKENS, ...)"""
    x = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    return F.pad(x, [0, 0] * (x.dim() - 2) + [0, TOKENS - x.shape[1]], value=fill)


def check_head(head: Any, reads: TargetTransform, embed_dim: int) -> list[Result]:
    """All checks of a head. reads: what its target's cells are read by, which the head was built for."""
    torch.manual_seed(0)
    head.eval()
    fused = random_features(ROWS, TOKENS, embed_dim, torch.tensor([True] * (ROWS - 1) + [False]))
    target, meta = tokens_of(reads)
    none = target[1:2].expand_as(target)

    def loss() -> None:
        total, count = head.loss(head(fused, target), target, fused)
        demand(total.dim() == 0 and count.dim() == 0, "loss: wanted two scalars, sum and count")
        demand(total.isfinite() and count > 0, f"loss: sum {total.item()}, count {count.item()} of labelled rows")
        halves = [Features(*(t[part] for t in fused)) for part in (slice(0, 2), slice(2, None))]
        parts = [head.loss(head(f, t), t, f) for f, t in zip(halves, target.split(2), strict=True)]
        same(parts[0][0] + parts[1][0], total, "sum over two halves of the rows")
        same(parts[0][1] + parts[1][1], count, "count over two halves of the rows")

    def unlabelled() -> None:
        total, count = head.loss(head(fused, none), none, fused)
        demand(
            not total.any() and not count.any(),
            f"sum {float(total)}, count {float(count)}, wanted 0 and 0 without any label",
        )
        other = Features(
            *(torch.where(_row(t, 1), u, t) for t, u in zip(fused, random_features(ROWS, TOKENS, embed_dim)))
        )
        before, after = (head.loss(head(f, target), target, f)[0] for f in (fused, other))
        same(after, before, "unlabelled row changed")

    def precision() -> None:
        low = Features(*(t.bfloat16() if t.is_floating_point() else t for t in fused))
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = head.loss(head(low, target), target, low)
        demand(total.dtype == torch.float32, f"loss under autocast: {total.dtype}, wanted torch.float32")

    def score() -> None:
        if isinstance(head, Spoken):
            rows = labelled(target).nonzero().flatten().tolist()
            learnt = examples(reads)
            said = head.decode(head(fused), fused, meta)
            written = [reads.readable(learnt.values[row], learnt.data) for row in rows]
            got, truth = head.compare([said[row] for row in rows], written)
        else:
            got, truth = head.score(head(fused), target)
        demand(
            len(got) == len(truth) == ROWS - 1, f"score: {len(got)} and {len(truth)} rows, wanted {ROWS - 1} labelled"
        )

    def decode() -> None:
        prediction = head(fused)
        rows = head.decode(prediction, fused, meta)
        demand(len(rows) == ROWS, f"decode: {len(rows)} rows, wanted {ROWS}")
        demand(next(iter(rows[0])) == "prediction", f"decode: first key '{next(iter(rows[0]))}', wanted 'prediction'")
        json.dumps(rows)  # raises where something isn't plain data
        merged = head.decode(head.merge(prediction, torch.arange(ROWS), ROWS), fused, meta)
        demand(
            [row["prediction"] for row in merged] == [row["prediction"] for row in rows],
            "merge: one window per row changes the prediction",
        )

    def calibrated() -> None:
        prediction = head(fused)
        logits, truth = head.choices(prediction, target)
        demand(
            logits.dim() == 3 and logits.shape[:2] == truth.shape,
            f"choices: logits {tuple(logits.shape)} and truth {tuple(truth.shape)}, wanted (N, G, C) and (N, G)",
        )
        possible = logits > -1e8
        softer, _ = head.choices(head.tempered(prediction, 2.0), target)
        same(softer[possible], logits[possible] / 2, "choices of what is tempered by 2, against half the logits")
        demand(torch.equal(softer > -1e8, possible), "tempered: what can't be chosen, can")

    def conformal() -> None:
        prediction = head(fused)
        scores = head.nonconformity(prediction, target)
        demand(len(scores) == ROWS - 1, f"nonconformity: {len(scores)} rows, wanted {ROWS - 1} labelled")
        limits = [float(column[~column.isnan()].max()) for column in scores.T]
        rows, size = head.region(prediction, limits)
        demand(len(rows) == len(size) == ROWS, f"region: {len(rows)} rows and {len(size)} sizes, wanted {ROWS}")
        json.dumps(rows)
        wider = head.region(prediction, [2 * x for x in limits])[1]
        demand((wider >= size).all(), "region: smaller under larger quantiles")

    def random_loss(copy: Any) -> Tensor:
        f, t = random_features(ROWS, TOKENS, embed_dim), target
        return copy.loss(copy(f, t), t, f)[0]

    def finite() -> None:
        for tensor in flat(head(fused)):
            demand(len(tensor) == ROWS, f"prediction: {len(tensor)} rows, wanted {ROWS}")
            demand(tensor.isfinite().all(), "prediction: not finite")

    checks: dict[str, Callable[[], None]] = {
        "shapes": finite, "loss": loss, "unlabelled": unlabelled, "precision": precision, "score": score,
        "decode": decode,
        "export": lambda: exports(head, (fused,), (random_features(ROWS, TOKENS, embed_dim),)),
        "compile": lambda: compiles(head, (fused,)),
    }  # fmt: skip
    more = {"calibrated": (Calibrated, calibrated), "conformal": (Conformal, conformal)}
    checks |= {name: check for name, (kind, check) in more.items() if isinstance(head, kind)}
    with torch.no_grad():
        results = run(checks)
    return results + run({"gradients": lambda: gradients(head, random_loss)})


def _row(t: Tensor, index: int) -> Tensor:
    """True in one row, for torch.where over tensors of any dimension."""
    return (torch.arange(t.shape[0]) == index).view(-1, *[1] * (t.dim() - 1))
