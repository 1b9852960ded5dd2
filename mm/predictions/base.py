"""What all predictions have in common, how they are decoded, and how a head's confidence is calibrated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from mm._compat.torch import tree_leaves

MAX_PROBABILITY = 1 - 1e-6  # probabilities beyond it, and below 1e-6, are clamped: larger log-odds are rounding errors


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How predictions become what a person reads; a head builds it from its own arguments.

    Attributes:
        classes: Names of the classes, labels, tags or symbols, in the order of the logits.
        input: The input whose tokens are predicted; `meta` has the keys `input/...`. None for predictions of a row.
        threshold: Probability from which a label is predicted (Bernoulli), score from which a box is (Boxes).
        scheme: How tags name entities (TokenCategorical): "bio", or "plain" where a tag stands for itself.
        separator: The text between two symbols (Transcript).
        beam_width: Number of prefixes that beam search keeps (Transcript); 1 is greedy search.
        max_answer_length: Largest number of tokens of an answer (Span).
        n_best: How many answers are listed (Span).
        nms_iou_threshold: IoU from which the box with the lower score of two boxes of one class is dropped (Boxes).
        max_detections: Largest number of boxes of a picture, including those below the threshold (Boxes).
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
        """Return the names of `count` classes.

        Raises:
            ValueError: If the head names more classes, or fewer.
        """
        if len(self.classes) != count:
            raise ValueError(
                f"the head predicts {count} classes, but names {len(self.classes)}; pass all of them to "
                "mm.heads.Head.__init__(classes=...)"
            )
        return self.classes

    def tokens_of(self) -> str:
        """Return the input whose tokens are predicted.

        Raises:
            ValueError: If the head names none.
        """
        if self.input is None:
            raise ValueError(
                "the head predicts something of each token, but names no input; pass input=... to "
                "mm.heads.Head.__init__"
            )
        return self.input


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of one head, fitted on validation rows.

    Attributes:
        temperature: Divides the logits, or, with `calibration = "platt"`, the log-odds of whole answers.
        bias: Added to the divided log-odds of whole answers.
        quantiles: Conformal quantile of the nonconformity of each sub-target; empty: there are no prediction sets.
        alpha: The share of rows whose truth may lie outside of their prediction set.
        exact: Whether log-odds of whole answers were computed without underflow. Older versions rounded the
            probability of long texts to zero.
    """

    temperature: float = 1.0
    bias: float = 0.0
    quantiles: tuple[float, ...] = ()
    alpha: float | None = None
    exact: bool = False

    def scale_log_odds(self, odds: float) -> float:
        """Return the calibrated log-odds of an answer."""
        return odds / self.temperature + self.bias


def sigmoid(odds: float) -> float:
    """Return the probability of log-odds, without overflow."""
    return 1 / (1 + exp(-odds)) if odds > 0 else exp(odds) / (1 + exp(odds))


def log_odds(probability: float) -> float:
    """Return the log-odds of a probability, which is clamped to 1e-6 from 0 and 1."""
    bounded = min(max(probability, 1 - MAX_PROBABILITY), MAX_PROBABILITY)
    return log(bounded / (1 - bounded))


class Prediction:
    """Base class of what heads return: a NamedTuple of tensors, each with a row per sample (B, ...).

    A new type inherits this class and a NamedTuple of its fields, and gives `merge`, `decode`, and `metric_inputs` or,
    with `compares_decoded`, `compare`. The other methods follow from the class attributes.

    Attributes:
        calibration: "temperature": the probabilities are a softmax or sigmoid of logits, which a temperature calibrates
            (Guo 2017): `temper` and `events`. "platt": every decoded answer has a confidence and is right or wrong as
            a whole, which a temperature and a bias of its log-odds calibrate (Platt 1999; Kuleshov & Liang 2015):
            `confidences` and `with_confidence`. None: there is no probability.
        has_sets: Whether there are conformal prediction sets: `nonconformity` and `prediction_sets`.
        compares_decoded: Whether metrics compare decoded rows with the cells that a person wrote.
    """

    __slots__ = ()
    calibration: ClassVar[Literal["temperature", "platt"] | None] = None
    has_sets: ClassVar[bool] = False
    compares_decoded: ClassVar[bool] = False

    def tensors(self) -> list[Tensor]:
        """Return the tensors of the prediction, in the order of its fields."""
        return tree_leaves(self)

    def merge(self, group: Tensor, count: int) -> Self:
        """Merge the windows of each row to one prediction, by the rules of `mm/windows.py`.

        Args:
            group: (B,) index of the row that each window belongs to.
            count: Number of rows.

        Returns:
            The predictions of the rows, (count, ...).
        """
        raise NotImplementedError

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return one dict of plain data per row, whose first key is "prediction"; meta is that of the batch."""
        raise NotImplementedError

    def metric_inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets of the labelled rows, as torchmetrics reads them."""
        raise NotImplementedError

    def compare(self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding) -> tuple[Any, Any]:
        """Return predictions and targets as torchmetrics reads them, of rows whose metrics compare what is decoded.

        Args:
            rows: What `decode` returned of labelled rows.
            truth: The targets of these rows, as a person writes them.
            decoding: As in `decode`.
        """
        raise NotImplementedError

    def temper(self, temperature: float) -> Self:
        """Return the prediction with its logits divided by the temperature; without logits, the same prediction."""
        return self

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a temperature is fitted on.

        Returns:
            Logits (N, G, C) of G sub-targets of the N labelled rows, and the true classes (N, G), where IGNORE may
            remain. C = 1 stands for a yes (1) or no (0). Classes that are impossible have a logit below -1e8.
        """
        raise NotImplementedError

    def confidences(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[float], list[bool]]:
        """Return the log-odds of every answer in decoded rows, and whether it is right; arguments as of `compare`."""
        raise NotImplementedError

    def with_confidence(
        self, row: dict[str, Any], scale: Callable[[float], float], decoding: Decoding
    ) -> dict[str, Any]:
        """Return a decoded row with `scale`, which keeps the order, applied to the log-odds of its answers."""
        raise NotImplementedError

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return nonconformity scores of the true targets, (N, G); higher is worse.

        N is the number of labelled rows, G that of independent sub-targets (1 for a class, C for C labels). A score is
        NaN where its sub-target is unlabelled.
        """
        raise NotImplementedError

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return what is no less conforming than the quantiles.

        Args:
            quantiles: One for each of the G sub-targets.
            decoding: As in `decode`.
            meta: As in `decode`.

        Returns:
            {"prediction_set": ...} or {"prediction_interval": ...} of each row, and the size of each (B,).
        """
        raise NotImplementedError
