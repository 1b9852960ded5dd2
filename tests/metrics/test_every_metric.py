"""Every metric that a head's yaml names, beside a library that computes the same, on 100 random cases each.

The cases have rare and empty classes, tiny probabilities, ties, rows without a label and a single row; they come in
uneven batches, and in two processes one of which may have seen no row.
"""

import random
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
import pytest
import torch
from metrics.test_average_precision import by_coco
from omegaconf import OmegaConf
from processes import run_two
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from scipy.stats import spearmanr
from seqeval.metrics import classification_report as seqeval_report
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import SQuAD

from mm.assembly.signatures import with_defaults
from mm.checkpoint import build
from mm.tasks.measures import metric_directions
from mm.types import IGNORE

HEADS = Path(__file__).parents[2] / "conf/model/heads"
CLASSES = ["O", "B-a", "I-a", "B-b", "I-b"]
RELATIONS = ["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "B(e2,e1)", "Other"]
FACTS = {"num_classes": 5, "num_labels": 5, "classes": CLASSES}
WORDS = ["the", "cat", "sees", "a", "dog's", "Bird", "an", "it,", "42", "Zoë", "ran"]

Case = tuple[Any, Any]  # what a metric's update takes
Numbers = dict[str, float]


def size(rng: random.Random) -> int:
    return rng.choice([1, 1, 2, 3, 7, 30])


def seeded(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.randrange(2**31))


# --- what is drawn


def draw_classes(rng: random.Random) -> Case:
    """Probabilities of 5 classes, of which some do not occur; some are tiny, some equal."""
    generator, rows = seeded(rng), size(rng)
    known = rng.sample(range(5), rng.choice([1, 2, 5]))
    truth = torch.tensor([rng.choice(known) for _ in range(rows)])
    logits = torch.randn(rows, 5, generator=generator) * rng.choice([0.1, 1.0, 30.0])
    if rng.random() < 0.5:
        logits[torch.arange(rows), truth] += 2
    return logits.softmax(-1), truth


def draw_labels(rng: random.Random) -> Case:
    """Probabilities of 5 labels; some labels are rare or never true, some rows unlabelled in part."""
    generator, rows = seeded(rng), size(rng)
    share = torch.tensor([rng.choice([0.0, 0.05, 0.5, 1.0]) for _ in range(5)])
    truth = (torch.rand(rows, 5, generator=generator) < share).long()
    chance = torch.rand(rows, 5, generator=generator) * rng.choice([1.0, 1e-6, 1e-30])
    chance = torch.where(truth > 0, (chance * 1.5).clamp(max=1), chance)
    if rng.random() < 0.3:
        chance = (chance * 4).round() / 4  # ties, also at the threshold
    if rng.random() < 0.3:
        truth[torch.rand(rows, 5, generator=generator) < 0.2] = IGNORE
        truth[:, 0] = truth[:, 0].clamp(min=0)  # a row without any label never comes here
    return chance, truth


def draw_numbers(rng: random.Random) -> Case:
    generator, rows = seeded(rng), max(2, size(rng))
    truth = torch.randn(rows, generator=generator) * rng.choice([0.01, 1.0, 100.0])
    if rng.random() < 0.3:
        truth = (truth / truth.abs().max() * 3).round()  # ties
        truth[0], truth[1] = 0, 1
    return truth + torch.randn(rows, generator=generator) * truth.std() * rng.choice([0.01, 1.0, 3.0]), truth


def draw_tags(rng: random.Random) -> Case:
    """Tags of texts, also some that BIO does not allow."""
    texts = [
        [rng.randrange(5) if rng.random() < 0.6 else 0 for _ in range(rng.randint(1, 9))] for _ in range(size(rng))
    ]
    kinds = [tag for text in texts for tag in text] if rng.random() < 0.2 else list(range(5))
    said = [[t if rng.random() < 0.7 else rng.choice(kinds) for t in text] for text in texts]
    found = [torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in rows], True, IGNORE) for rows in (said, texts)]
    return found[0], found[1]


def sentence(rng: random.Random, least: int = 0) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, 9)))


def draw_texts(rng: random.Random) -> Case:
    """Texts and one true text each, which is never empty; what is said may be."""
    truth = [sentence(rng, 1) for _ in range(size(rng))]
    said = [rng.choice([text, sentence(rng), " ".join(text.split()[:-1])]) for text in truth]
    return said, truth


def draw_references(rng: random.Random) -> Case:
    said, truth = draw_texts(rng)
    return said, [[text] for text in truth]


def draw_answers(rng: random.Random) -> Case:
    """Questions with several right answers; of some it is right to say nothing."""
    truth = [[sentence(rng) for _ in range(rng.randint(1, 3))] for _ in range(size(rng))]
    return [rng.choice([rng.choice(right), sentence(rng)]) for right in truth], truth


def draw_boxes(rng: random.Random) -> Case:
    """Pictures with and without objects and with and without boxes; scores may tie."""
    generator, told, truth = seeded(rng), [], []
    for _ in range(rng.randint(1, 4)):
        count = rng.randint(0, 4)
        start = torch.rand(count, 2, generator=generator) * 60
        boxes = torch.cat([start, start + 10 + torch.rand(count, 2, generator=generator) * 30], dim=1)
        labels = torch.randint(0, 4, (count,), generator=generator)
        keep = torch.rand(count, generator=generator) < 0.8
        moved = (boxes + torch.randn(count, 4, generator=generator) * 2)[keep]
        scores = torch.rand(len(moved), generator=generator)
        truth.append({"boxes": boxes, "labels": labels})
        told.append({"boxes": moved, "labels": labels[keep], "scores": scores})
    if not any(len(one["boxes"]) for one in truth) or not any(len(one["boxes"]) for one in told):
        return draw_boxes(rng)  # of no object at all pycocotools has no number, and of no box it can't read a file
    return told, truth


# --- what other libraries make of it


def by_accuracy(said: Tensor, truth: Tensor) -> Numbers:
    return {"accuracy": sk.accuracy_score(truth, said.argmax(1))}


def by_calibration(said: Tensor, truth: Tensor) -> Numbers:
    """Guo 2017, by hand: 15 bins of equal width."""
    chance, best = (x.double().numpy() for x in said.max(1))
    bins = np.minimum((chance * 15).astype(int), 14)
    right = best == truth.numpy()
    gaps = [abs(chance[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    return {"calibration_error": float(sum(gaps))}


def by_report(said: Tensor, truth: Tensor) -> Numbers:
    best = said.argmax(1)
    occur = sorted({*truth.tolist(), *best.tolist()})
    how: dict[str, Any] = {"zero_division": 0}
    found: Numbers = {}
    for mean, labels in (("macro", occur), ("micro", None), ("weighted", None)):
        values = sk.precision_recall_fscore_support(truth, best, labels=labels, average=mean, **how)
        found |= {f"{name}_{mean}": float(x) for name, x in zip(("precision", "recall", "f1"), values)}
    each = sk.precision_recall_fscore_support(truth, best, labels=range(5), **how)
    for name, values in zip(("precision", "recall", "f1", "support"), each):
        found |= {f"{name}/{kind}": float(x) for kind, x in zip(CLASSES, values)}
    return found


def by_relations(said: Tensor, truth: Tensor) -> Numbers:
    """SemEval-2010 task 8's scorer: directions count as one relation, but the wrong one is an error."""
    kinds = np.array([0, 0, 1, 1, 2])
    best, true = said.argmax(1).numpy(), truth.numpy()
    each = []
    for kind in (0, 1):
        right = int(((best == true) & (kinds[true] == kind)).sum())
        told, there = int((kinds[best] == kind).sum()), int((kinds[true] == kind).sum())
        p, r = right / told if told else 0.0, right / there if there else 0.0
        each.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    means = np.mean(each, axis=0)
    named = {f"f1/{name}": one[2] for name, one in zip("AB", each)}
    return dict(zip(("precision", "recall", "f1"), means.tolist())) | named


def labelled_columns(said: Tensor, truth: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(p[t != IGNORE].numpy(), t[t != IGNORE].numpy()) for p, t in zip(said.T, truth.T)]


def by_label_f1(said: Tensor, truth: Tensor) -> Numbers:
    how: dict[str, Any] = {"zero_division": 0, "labels": [1], "average": "macro"}
    columns = labelled_columns(said, truth)
    return {"f1": float(np.mean([sk.f1_score(t, p > 0.5, **how) if len(t) else 0.0 for p, t in columns]))}


def by_label_precision(said: Tensor, truth: Tensor) -> Numbers:
    found = [sk.average_precision_score(t, p) for p, t in labelled_columns(said, truth) if t.any()]
    return {"average_precision": float(np.mean(found)) if found else float("nan")}


def by_label_match(said: Tensor, truth: Tensor) -> Numbers:
    right = [((p > 0.5).long() == t)[t != IGNORE].all() for p, t in zip(said, truth)]
    return {"exact_match": float(np.mean(right))}


def by_number(name: str, measure: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Tensor, Tensor], Numbers]:
    return lambda said, truth: {name: float(measure(truth.double().numpy(), said.double().numpy()))}


def by_seqeval(said: Tensor, truth: Tensor) -> Numbers:
    tags = [[[CLASSES[i] for i in row[row != IGNORE]] for row in rows] for rows in (truth, said)]
    right = [a == b for one, other in zip(*tags) for a, b in zip(one, other)]
    found: Numbers = {"token_accuracy": float(np.mean(right))}
    if not any(tag != "O" for rows in tags for row in rows for tag in row):
        return found | {"f1": 0.0, "f1/a": 0.0}
    report: Any = seqeval_report(*tags, output_dict=True, zero_division=0)
    found |= {f"f1_{name}": report[f"{name} avg"]["f1-score"] for name in ("macro",)}
    for kind, mark in (("micro avg", ""), ("a", "/a"), ("b", "/b")):
        row = report.get(kind, {"precision": 0, "recall": 0, "f1-score": 0})
        found |= {f"{name}{mark}": float(row[name]) for name in ("precision", "recall")}
        found[f"f1{mark}"] = float(row["f1-score"])
    return found


def by_squad(name: str) -> Callable[[list[str], list[list[str]]], Numbers]:
    def measure(said: list[str], truth: list[list[str]]) -> Numbers:
        squad = SQuAD()
        squad.update(
            [{"prediction_text": one, "id": str(i)} for i, one in enumerate(said)],
            [{"answers": {"answer_start": [0] * len(r), "text": r}, "id": str(i)} for i, r in enumerate(truth)],
        )
        return {name: float(squad.compute()[name]) / 100}

    return measure


def by_plain_match(said: list[str], truth: list[list[str]]) -> Numbers:
    return {
        "exact_match": float(np.mean([one.lower() in [x.lower() for x in right] for one, right in zip(said, truth)]))
    }


def by_bleu(said: list[str], truth: list[list[str]]) -> Numbers:
    return {"bleu": BLEU(smooth_method="exp").corpus_score(said, [[right[0] for right in truth]]).score / 100}


def by_chrf(said: list[str], truth: list[list[str]]) -> Numbers:
    return {"chrf": CHRF().corpus_score(said, [[right[0] for right in truth]]).score / 100}


def rouge_l(said: str, truth: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), words as in Google's rouge-score."""
    one, other = (re.sub(r"[^a-z0-9]+", " ", text.lower()).split() for text in (said, truth))
    longest = np.zeros((len(one) + 1, len(other) + 1))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            longest[i + 1, j + 1] = longest[i, j] + 1 if a == b else max(longest[i, j + 1], longest[i + 1, j])
    return 2 * longest[-1, -1] / (len(one) + len(other)) if one and other else 0.0


def by_rouge(said: list[str], truth: list[list[str]]) -> Numbers:
    return {"rouge_l": float(np.mean([rouge_l(one, right[0]) for one, right in zip(said, truth)]))}


def by_pycocotools(told: list[dict], truth: list[dict]) -> Numbers:
    found = by_coco(told, truth, [0, 1, 2, 3])
    return dict(zip(("map", "map50", "map75"), found.tolist()))


class Check(NamedTuple):
    """A random case, and what another library makes of it; at most this far from it."""

    draw: Callable[[random.Random], Case]
    wanted: Callable[[Any, Any], Numbers]
    near: float = 1e-5


CHECKS = {
    "causal_lm.bleu": Check(draw_references, by_bleu),
    "causal_lm.exact_match": Check(draw_references, by_plain_match),
    "causal_lm.rouge_l": Check(draw_references, by_rouge),
    "classification.accuracy": Check(draw_classes, by_accuracy),
    "classification.calibration_error": Check(draw_classes, by_calibration),
    "classification.report": Check(draw_classes, by_report),
    "ctc.cer": Check(draw_texts, lambda said, truth: {"cer": jiwer.cer(truth, said)}),
    "ctc.wer": Check(draw_texts, lambda said, truth: {"wer": jiwer.wer(truth, said)}),
    "detection.detection": Check(draw_boxes, by_pycocotools),
    "multilabel.average_precision": Check(draw_labels, by_label_precision),
    "multilabel.exact_match": Check(draw_labels, by_label_match),
    "multilabel.f1": Check(draw_labels, by_label_f1),
    "regression.mae": Check(draw_numbers, by_number("mae", sk.mean_absolute_error)),
    "regression.r2": Check(draw_numbers, by_number("r2", sk.r2_score)),
    "regression.rmse": Check(draw_numbers, by_number("rmse", sk.root_mean_squared_error)),
    "regression.spearman": Check(draw_numbers, by_number("spearman", lambda t, p: spearmanr(t, p).statistic), 1e-4),
    "relation.accuracy": Check(draw_classes, by_accuracy),
    "relation.relations": Check(draw_classes, by_relations),
    "seq2seq.bleu": Check(draw_references, by_bleu),
    "seq2seq.chrf": Check(draw_references, by_chrf),
    "seq2seq.rouge_l": Check(draw_references, by_rouge),
    "span.exact_match": Check(draw_answers, by_squad("exact_match")),
    "span.f1": Check(draw_answers, by_squad("f1")),
    "token_classification.entities": Check(draw_tags, by_seqeval),
}


@cache
def configs() -> dict[str, dict[str, Any]]:
    """head.metric -> its config, of every head's yaml."""
    found = {}
    for file in sorted(HEADS.glob("*.yaml")):
        head: Any = OmegaConf.create(with_defaults(OmegaConf.to_container(OmegaConf.load(file))))
        for name in head.get("metrics", {}):
            node: Any = OmegaConf.create({"threshold": head.get("threshold"), "metrics": {"one": head.metrics[name]}})
            for key, value in (FACTS | {"classes": RELATIONS if file.stem == "relation" else CLASSES}).items():
                if OmegaConf.is_missing(node.metrics.one, key):
                    node.metrics.one[key] = value
            found[f"{file.stem}.{name}"] = OmegaConf.to_container(node, resolve=True)["metrics"]["one"]  # type: ignore
    return found


def make(name: str) -> Metric:
    return build(configs()[name], ["torchmetrics"])


def feed(metric: Metric, case: Case, rows: list[int], batch: int = 7) -> None:
    """Update with these rows, in batches."""
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        if isinstance(case[0], Tensor):
            metric.update(*(x[part] for x in case))
        else:
            metric.update(*([x[i] for i in part] for x in case))


def numbers(name: str, metric: Metric) -> Numbers:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
        warnings.filterwarnings("ignore", "average precision: . of 5 labels have no positive row", UserWarning)
        found = metric.compute()
    found = found if isinstance(found, Mapping) else {name.partition(".")[2]: found}
    return {key: float(value) for key, value in found.items()}


def case_of(name: str, seed: int) -> Case:
    return CHECKS[name].draw(random.Random(f"{name} {seed}"))


def test_every_metric_of_every_head_is_checked() -> None:
    assert set(CHECKS) == set(configs())


def test_every_metric_of_every_head_has_a_direction() -> None:
    for name in CHECKS:
        found = metric_directions(name.partition(".")[2], make(name))
        assert all(up is not None for key, up in found.items() if not key.startswith("support")), name
        assert all(up is (name.partition(".")[2] not in ("cer", "wer", "mae", "rmse", "calibration_error"))
                   for up in found.values() if up is not None), name  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("cases", [10, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CHECKS)
def test_as_another_library_computes_it(name: str, cases: int) -> None:
    check, metric = CHECKS[name], make(name)
    for seed in range(cases):
        case = case_of(name, seed)
        feed(metric, case, list(range(len(case[0]))))
        got, wanted = numbers(name, metric), check.wanted(*case)
        metric.reset()
        for key, value in wanted.items():
            assert got[key] == pytest.approx(value, rel=1e-6, abs=check.near, nan_ok=True), (
                f"{name}, case {seed}: {key}"
            )


SPLITS: dict[str, Callable[[int], int]] = {"none": lambda n: n, "uneven": lambda n: n - n // 3}


def work(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, Numbers] = {}
    for name in CHECKS:
        metric = make(name)
        for seed in range(10):
            case = case_of(name, seed)
            for split, first in SPLITS.items():
                rows = list(range(len(case[0])))
                feed(metric, case, rows[: first(len(rows))] if rank == 0 else rows[first(len(rows)) :])
                found[f"{name} {seed} {split}"] = numbers(name, metric)
                metric.reset()
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    run_two(work, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in CHECKS:
        metric = make(name)
        for seed in range(10):
            case = case_of(name, seed)
            feed(metric, case, list(range(len(case[0]))))
            wanted = numbers(name, metric)
            metric.reset()
            for split in SPLITS:
                for part in found:
                    got = part[f"{name} {seed} {split}"]
                    assert got == pytest.approx(wanted, abs=1e-5, nan_ok=True), f"{name}, case {seed}, {split}"
