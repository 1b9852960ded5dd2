"""Evaluation: metrics on any data, subsets of inputs, robustness, probes and zero-shot classification."""

from mm.evaluation.evaluate import EvaluationReport, evaluate
from mm.evaluation.frozen_vectors import extract_embeddings
from mm.evaluation.probing import FewShot, ProbeReport, Probes, few_shot, linear_probe, probe
from mm.evaluation.robustness import RobustnessReport, RobustnessSettings, measure_robustness, plan_robustness
from mm.evaluation.zero_shot import ClassPrompts, embed_texts, zero_shot_metrics

__all__ = [
    "ClassPrompts",
    "EvaluationReport",
    "FewShot",
    "ProbeReport",
    "Probes",
    "RobustnessReport",
    "RobustnessSettings",
    "embed_texts",
    "evaluate",
    "extract_embeddings",
    "few_shot",
    "linear_probe",
    "measure_robustness",
    "plan_robustness",
    "probe",
    "zero_shot_metrics",
]
