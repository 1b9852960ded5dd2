"""Prediction types: the outputs of heads, with their decoding, metrics and calibration.

A head returns one of these types. Each is a NamedTuple of tensors with one row per sample:

- `Categorical`: exactly one of several classes;
- `Bernoulli`: any number of several labels;
- `Scalar`: a number;
- `TokenCategorical`: one class per token of an input, such as the tags of named entities;
- `Span`: the part of a text that answers a question;
- `Boxes`: objects in an image;
- `Transcript`: a sequence of symbols, aligned with the tokens by connectionist temporal classification (CTC);
- `Text`: a text that is generated token by token.

Every type merges the predictions of the windows of a row (`merge`), decodes them to plain data (`decode`) and returns
the pair of predictions and targets that metrics compare. The class attributes `calibration` and `has_sets` say whether
its confidence can be calibrated and whether it has conformal prediction sets.
"""

from mm.predictions.base import MAX_PROBABILITY, Calibration, Decoding, Prediction, log_odds, sigmoid
from mm.predictions.bernoulli import Bernoulli
from mm.predictions.boxes import Boxes
from mm.predictions.categorical import Categorical
from mm.predictions.scalar import Scalar
from mm.predictions.span import Span
from mm.predictions.text import Text
from mm.predictions.token_categorical import TokenCategorical
from mm.predictions.transcript import Transcript

__all__ = [
    "MAX_PROBABILITY",
    "Bernoulli",
    "Boxes",
    "Calibration",
    "Categorical",
    "Decoding",
    "Prediction",
    "Scalar",
    "Span",
    "Text",
    "TokenCategorical",
    "Transcript",
    "log_odds",
    "sigmoid",
]
