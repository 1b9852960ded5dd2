"""Whether a higher value of a metric is better, by its name alone, for results that do not record it."""

import re

# The last part of a name without "@" and the text after it, such as `recall` of `test[text→vision]/recall@5`.
HIGHER = (
    "accuracy", "adjusted_rand", "auroc", "average_precision", "balanced_accuracy", "bleu", "chrf", "coverage",
    "effective", "exact_match", "f1", "f1_macro", "f1_micro", "f1_weighted", "map", "map50", "map75", "mfu", "mrr",
    "ndcg", "pearson", "precision", "precision_macro", "precision_micro", "precision_weighted", "r2",
    "recall", "recall_macro",
    "recall_micro", "recall_weighted", "relative", "rouge1", "rouge2", "rougeL", "rouge_l", "rows_per_second",
    "spearman", "token_accuracy",
    "word_accuracy",  # name in earlier versions, like interval_size, set_size, and the suffix _before
)  # fmt: skip
LOWER = (
    "brier", "calibration_error", "cer", "duration_s", "ece", "error", "interval_size", "loss", "mae", "mape",
    "mean_interval_size", "mean_set_size", "median_rank", "mse", "nll", "perplexity", "rmse", "seconds", "set_size",
    "smape", "teacher_loss", "unimodal_loss", "wer", "width",
)  # fmt: skip
ENDINGS = {"accuracy": True, "recall": True, "precision": True, "f1": True, "loss": False, "error": False,
           "seconds": False, "perplexity": False, "mae": False, "rmse": False, "mse": False,
           "per_second": True}  # fmt: skip
DIRECTIONS = "metrics.directions.json"  # file in a run folder: metric name to whether higher is better
NONE = ("support", "rows", "chance")  # counts, and chance levels


def known_direction(name: str) -> bool | None:
    """Return whether a higher value of a metric is better, by its name.

    Args:
        name: Name in metrics.json, such as `val/loss` or `test/precision/cat`.

    Returns:
        Whether higher is better; None if this is unknown, or if neither is better.
    """
    parts = [part.partition("@")[0] for part in re.sub(r"\[.*?\]|_(?:uncalibrated|before)$", "", name).split("/")]
    for part in parts[1:] or parts:  # the name of a class follows that of its metric
        if part in NONE:
            return None
        if part in HIGHER or part in LOWER:
            return part in HIGHER
    for part in parts[1:] or parts:
        for ending, higher in ENDINGS.items():
            if part.endswith((f"_{ending}", f"-{ending}")):
                return higher
    return None
