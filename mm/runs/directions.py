"""Whether a higher value of a metric is better, by the metric's name alone: for results that do not say it."""

import re

# The last part of a name, such as `recall@5` of `test[text→vision]/recall@5`, without @ and what follows it.
HIGHER = (
    "accuracy", "adjusted_rand", "auroc", "average_precision", "balanced_accuracy", "bleu", "chrf", "coverage",
    "effective", "exact_match", "f1", "f1_macro", "f1_micro", "f1_weighted", "map", "map50", "map75", "mfu", "mrr",
    "ndcg", "pearson", "precision", "precision_macro", "precision_micro", "precision_weighted", "r2",
    "recall", "recall_macro",
    "recall_micro", "recall_weighted", "relative", "rouge1", "rouge2", "rougeL", "rouge_l", "rows_per_second",
    "spearman", "token_accuracy",
    "word_accuracy",  # of earlier versions, as are interval_size, set_size, and the ending _before
)  # fmt: skip
LOWER = (
    "brier", "calibration_error", "cer", "duration_s", "ece", "error", "interval_size", "loss", "mae", "mape",
    "mean_interval_size", "mean_set_size", "median_rank", "mse", "nll", "perplexity", "rmse", "seconds", "set_size",
    "smape", "teacher_loss", "unimodal_loss", "wer", "width",
)  # fmt: skip
ENDINGS = {"accuracy": True, "recall": True, "precision": True, "f1": True, "loss": False, "error": False,
           "seconds": False, "perplexity": False, "mae": False, "rmse": False, "mse": False,
           "per_second": True}  # fmt: skip
DIRECTIONS = "metrics.directions.json"  # of a run folder: name -> whether higher is better
NONE = ("support", "rows", "chance")  # counts, and what guessing would reach


def known_direction(name: str) -> bool | None:
    """Look up whether a higher value is better.

    Args:
        name: As in metrics.json, such as `val/loss` or `test/precision/cat`.

    Returns:
        None where it is not known, or where neither is better.
    """
    parts = [part.partition("@")[0] for part in re.sub(r"\[.*?\]|_(?:uncalibrated|before)$", "", name).split("/")]
    for part in parts[1:] or parts:  # a class's name stands behind its metric's
        if part in NONE:
            return None
        if part in HIGHER or part in LOWER:
            return part in HIGHER
    for part in parts[1:] or parts:
        for ending, higher in ENDINGS.items():
            if part.endswith((f"_{ending}", f"-{ending}")):
                return higher
    return None
