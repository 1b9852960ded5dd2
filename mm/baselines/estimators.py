"""The classical model of each kind of input, and its scores; see mm/baselines/scoring.py for what scores are."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mm.types import IGNORE

MAX_SVM_ROWS = 5_000  # training rows of a support vector machine, whose time grows with their square
MANY_CLASSES = 20  # above which a linear model has a single setting, since each class takes a fit of its own
RARE_ABOVE = 2_000  # training rows from which n-grams of a single row are left out
DESCRIPTIONS = {
    "text": "TF-IDF of words and characters, linear",
    "audio": "MFCC statistics, SVM",
    "vision": "gradient and colour histograms, SVM",
    "tabular": "gradient boosting",
}
OTHER = "features, linear"  # of any other modality


def max_training_rows(modality: str) -> int | None:
    """Return how many training rows the model of a modality takes at most; None: there is no limit."""
    return MAX_SVM_ROWS if modality in ("audio", "vision") else None


def vectorize_texts(train: Sequence[str], texts: Sequence[str]) -> tuple[Any, Any]:
    """Return the TF-IDF of words (1 to 2) and of characters within words (2 to 5) of training texts and of others.

    Args:
        train: Training texts, none of them empty.
        texts: Other texts.

    Returns:
        Two sparse matrices, (N, D) and (M, D).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    shared: dict[str, Any] = {
        "sublinear_tf": True,
        "min_df": 2 if len(train) > RARE_ABOVE else 1,
        "dtype": np.float32,
    }
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]", **shared),
        TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb", **shared),
    )
    return union.fit_transform(train), union.transform(texts)


def list_settings(modality: str, kind: str, num_classes: int) -> list[dict[str, Any]]:
    """Return the settings of a model from which validation rows choose; the first is used if there are none.

    Args:
        modality: Modality of the input.
        kind: Kind of the target.
        num_classes: Number of its classes.
    """
    if modality in ("audio", "vision"):
        return [{"C": 10.0}, {"C": 1.0}] if kind != "labels" else [{"C": 10.0}]
    if modality == "tabular":
        return [{}, {"max_leaf_nodes": 6}] if kind != "labels" else [{"max_leaf_nodes": 6}]
    if kind == "number":
        return [{"alpha": 1.0}, {"alpha": 0.1}, {"alpha": 10.0}]
    return [{"C": 10.0}, {"C": 1.0}] if kind == "class" and num_classes <= MANY_CLASSES else [{"C": 10.0}]


def build_estimator(modality: str, kind: str, setting: dict[str, Any], num_rows: int, categories: Sequence[int]) -> Any:
    """Return an estimator of scikit-learn.

    Args:
        modality: Modality of the input.
        kind: Kind of the target.
        setting: One of `list_settings`.
        num_rows: Number of training rows.
        categories: Indices of the features that are categories.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    number = kind == "number"
    if modality == "tabular":
        boosting: Any = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
        smallest = min(20, max(1, num_rows // 20))
        return boosting(categorical_features=list(categories), min_samples_leaf=smallest, random_state=0, **setting)
    if modality in ("audio", "vision"):
        return make_pipeline(StandardScaler(), (SVR if number else SVC)(**setting))
    if modality != "text":
        return make_pipeline(
            StandardScaler(), Ridge(**setting) if number else LogisticRegression(max_iter=200, **setting)
        )
    if number:
        return Ridge(**setting)
    # One classifier per class in the dual is ten times as fast as a softmax on sparse features, and no worse.
    linear = LogisticRegression(solver="liblinear", dual=True, tol=0.1, max_iter=20, random_state=0, **setting)
    return OneVsRestClassifier(linear) if kind == "class" else linear


def score_rows(build: Any, kind: str, x: Any, target: np.ndarray, others: Any, prior: np.ndarray) -> np.ndarray:
    """Fit estimators on training rows and return the scores of other rows.

    Args:
        build: Function of no arguments that returns a new estimator.
        kind: Kind of the target.
        x: Features of the training rows, (N, D).
        target: Their target, (N,) or (N, C).
        others: Features of other rows, (M, D).
        prior: Scores of a row without any input, (C,), which labels have that do not vary.

    Returns:
        Scores, (M, C).
    """
    if kind == "number":
        mean, std = target.mean(), target.std() or 1.0
        return (fit_estimator(build(), x, (target - mean) / std).predict(others) * std + mean)[:, None]
    scores = np.tile(prior, (others.shape[0], 1))
    if kind == "class":
        present = np.unique(target)
        decision = fit_estimator(build(), x, target).decision_function(others)
        decision = np.stack([-decision, decision], axis=1) / 2 if decision.ndim == 1 else decision
        scores[:] = decision.min(1, keepdims=True) - 10  # of classes that no training row with this input has
        scores[:, present] = decision
        return scores
    for label in range(target.shape[1]):
        known = np.flatnonzero(target[:, label] != IGNORE)
        values = target[known, label]
        if len(np.unique(values)) == 2:
            scores[:, label] = fit_estimator(build(), x[known], values).decision_function(others)
    return scores


def has_variety(kind: str, target: np.ndarray) -> bool:
    """Return whether training rows have two different targets, without which there is nothing to fit."""
    return len(target) > 1 and (kind == "labels" or len(np.unique(target)) > 1)


def fit_estimator(estimator: Any, x: Any, target: np.ndarray) -> Any:
    """Fit an estimator whose number of iterations is bounded on purpose, and return it."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, target)
