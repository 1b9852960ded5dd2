"""Base class of predictions, and the settings of their decoding and calibration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from mm._compat.torch import tree_leaves

MAX_PROBABILITY = 1 - 1e-6  # probabilities are clamped to 1e-6..1 - 1e-6, as larger log-odds are rounding errors


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Settings for decoding predictions to plain data; a head creates them from its own arguments.

    Attributes:
        classes: Names of the classes, labels, tags or symbols, in the order of the logits.
        input: Name of the input whose tokens are predicted; `meta` has the keys `input/...`. None for predictions of a
            row.
        threshold: Minimum probability of a predicted label (Bernoulli), or minimum score of a predicted box (Boxes).
        scheme: Meaning of the tags (TokenCategorical): "bio" for entities in BIO tags, or "plain" for tags that are not
            entities.
        separator: Text between two symbols (Transcript).
        beam_width: Number of prefixes that beam search keeps (Transcript); 1 is greedy search.
        max_answer_length: Maximum number of tokens of an answer (Span).
        n_best: Number of answers to list (Span).
        nms_iou_threshold: IoU threshold of non-maximum suppression: of two boxes of the same class with a
            higher IoU, the one with the lower score is dropped (Boxes).
        max_detections: Maximum number of boxes per image, including those below the threshold (Boxes).
    """

    classes: tuple[str, ...] = ()
    input: str | None = None
    threshold: float = 0.5
    scheme: str = "bio"
    separator: str = ""
    beam_width: int = 1
    max_answer_length: int = 64
    n_best: int = 3
    nms_iou_threshold: float = 0.6
    max_detections: int = 100

    def class_names(self, count: int) -> tuple[str, ...]:
        """Return the names of the classes.

        Args:
            count: Number of classes that the head predicts.

        Raises:
            ValueError: If the number of names differs from `count`.
        """
        if len(self.classes) != count:
            raise ValueError(
                f"the head predicts {count} classes, but names {len(self.classes)}; pass all of them to "
                "mm.heads.Head.__init__(classes=...)"
            )
        return self.classes

    def tokens_of(self) -> str:
        """Return the name of the input whose tokens are predicted.

        Raises:
            ValueError: If the head has no such input.
        """
        if self.input is None:
            raise ValueError(
                "the head predicts something of each token, but names no input; pass input=... to "
                "mm.heads.Head.__init__"
            )
        return self.input


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of one head, fitted on validation rows.

    Attributes:
        temperature: Divisor of the logits. With `calibration = "platt"`, it divides the log-odds that a complete answer
            (such as a generated text or a box) is right.
        bias: Term that is added to these log-odds after the division; used with `calibration = "platt"` only.
        quantiles: Conformal quantile of the nonconformity scores of each sub-target, that is, of each independently
            predicted part of a target, such as one label of several. Empty: the head has no prediction sets.
        alpha: Accepted fraction of rows whose true target lies outside of their prediction set, in 0..1.
        threshold: Minimum calibrated score of a predicted object, chosen on validation rows; None: that of the head.
        exact: Whether the log-odds of complete answers were computed without underflow. It is False for files of older
            versions, in which the probability of long texts was rounded to zero.
    """

    temperature: float = 1.0
    bias: float = 0.0
    quantiles: tuple[float, ...] = ()
    alpha: float | None = None
    exact: bool = False
    threshold: float | None = None

    def apply_threshold(self, decoding: Decoding) -> Decoding:
        """Return decoding settings with the threshold of this calibration, if it has one."""
        return decoding if self.threshold is None else replace(decoding, threshold=self.threshold)

    def revise_row(self, row: dict[str, Any], prediction: "Prediction", decoding: Decoding) -> dict[str, Any]:
        """Return a decoded row with calibrated confidences, and with the threshold of this calibration.

        Args:
            row: The decoded row.
            prediction: The prediction that the row belongs to, with `calibration = "platt"`.
            decoding: The decoding settings of the head.
        """
        return prediction.with_confidence(row, self.scale_log_odds, self.apply_threshold(decoding))

    def scale_log_odds(self, odds: float) -> float:
        """Return the calibrated log-odds that an answer is right.

        Args:
            odds: The uncalibrated log-odds.
        """
        return odds / self.temperature + self.bias


def sigmoid(odds: float) -> float:
    """Return the probability that belongs to log-odds, computed without overflow."""
    return 1 / (1 + exp(-odds)) if odds > 0 else exp(odds) / (1 + exp(odds))


def log_odds(probability: float) -> float:
    """Return the log-odds of a probability, which is first clamped to 1e-6..1 - 1e-6."""
    bounded = min(max(probability, 1 - MAX_PROBABILITY), MAX_PROBABILITY)
    return log(bounded / (1 - bounded))


class Prediction:
    """Base class of the predictions of a head: a NamedTuple of tensors with one row per sample, (B, ...).

    A new type inherits from this class and from a NamedTuple of its fields. It implements `merge`, `decode`, and either
    `metric_inputs` or, with `compares_decoded`, `compare`. The class attributes decide which other methods it must
    implement.

    Attributes:
        calibration: Calibration method. "temperature": the probabilities are a softmax or sigmoid of logits, which are
            divided by a temperature (Guo et al. 2017); implement `temper` and `events`. "platt": each decoded answer
            has a confidence and is either right or wrong; its log-odds are scaled by a temperature and a bias (Platt
            1999, Kuleshov and Liang 2015); implement `confidences` and `with_confidence`. None: there are no
            probabilities.
        has_sets: Whether the type has conformal prediction sets; implement `nonconformity` and `prediction_sets`.
        compares_decoded: Whether metrics compare decoded rows with the original cells of the table.
        has_threshold: Whether a row has any number of answers, those whose confidence reaches a threshold. The true
            target of a row is then a list of answers.
    """

    __slots__ = ()
    calibration: ClassVar[Literal["temperature", "platt"] | None] = None
    has_sets: ClassVar[bool] = False
    compares_decoded: ClassVar[bool] = False
    has_threshold: ClassVar[bool] = False

    def tensors(self) -> list[Tensor]:
        """Return the tensors of the prediction, in the order of its fields."""
        return tree_leaves(self)

    def merge(self, group: Tensor, count: int) -> Self:
        """Merge the predictions of the windows of each row, by the rules in `mm/windows.py`.

        Args:
            group: Index of the row that each window belongs to, (B,).
            count: Number of rows.

        Returns:
            One prediction per row, (count, ...).
        """
        raise NotImplementedError

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return the predictions as plain data.

        Args:
            decoding: The decoding settings.
            meta: Tensors of the batch that decoding needs, by name, such as "text/characters".

        Returns:
            One dictionary per row, whose first key is "prediction".
        """
        raise NotImplementedError

    def metric_inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions and the targets of the labelled rows, in the form that torchmetrics expects."""
        raise NotImplementedError

    def compare(self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding) -> tuple[Any, Any]:
        """Return the predictions and targets of decoded rows, in the form that torchmetrics expects.

        It is used instead of `metric_inputs` if `compares_decoded` is set.

        Args:
            rows: Decoded rows that are labelled, as `decode` returns them.
            truth: Targets of these rows in readable form, as `TargetCodec.decode` returns them.
            decoding: The decoding settings.
        """
        raise NotImplementedError

    def temper(self, temperature: float) -> Self:
        """Return the prediction with its logits divided by the temperature, or unchanged if it has no logits."""
        return self

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the true classes on which a temperature is fitted.

        Returns:
            Logits (N, G, C) of the G sub-targets of the N labelled rows, and the true classes (N, G), which may contain
            IGNORE. If C is 1, a sub-target is binary and its class is 0 or 1. Impossible classes have a logit below
            -1e8.
        """
        raise NotImplementedError

    def confidences(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[float], list[bool]]:
        """Return the log-odds of every answer in decoded rows, and whether each answer is right.

        Args:
            rows: Decoded rows that are labelled, as `decode` returns them.
            truth: Targets of these rows in readable form.
            decoding: The decoding settings.
        """
        raise NotImplementedError

    def with_confidence(
        self, row: dict[str, Any], scale: Callable[[float], float], decoding: Decoding
    ) -> dict[str, Any]:
        """Return a decoded row with calibrated confidences.

        Args:
            row: The decoded row.
            scale: Monotonically increasing function from the log-odds of an answer to its calibrated log-odds.
            decoding: The decoding settings.
        """
        raise NotImplementedError

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the nonconformity scores of the true targets, (N, G); a higher score is a worse prediction.

        N is the number of labelled rows and G the number of independent sub-targets (1 for a class, C for C labels).
        The score of an unlabelled sub-target is NaN.

        Args:
            target: Targets of the batch.
            decoding: The decoding settings.
        """
        raise NotImplementedError

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return for each row the set of the values whose nonconformity scores do not exceed the quantiles.

        Args:
            quantiles: Conformal quantile of each of the G sub-targets.
            decoding: The decoding settings.
            meta: Tensors of the batch that decoding needs, by name.

        Returns:
            A dictionary {"prediction_set": ...} or {"prediction_interval": ...} per row, and the size of each set,
            (B,).
        """
        raise NotImplementedError
