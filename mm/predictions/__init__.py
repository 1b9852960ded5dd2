"""Typed predictions: what a head returns, and what can be done with it, each written once per type.

A head returns one of these types, all of them NamedTuples of tensors with a row per sample:

- `Categorical`: one class of several;
- `Bernoulli`: any number of several labels;
- `Scalar`: a number;
- `TokenCategorical`: a class for each token of an input, such as the tags of named entities;
- `Span`: the part of a text that answers a question;
- `Boxes`: objects in a picture;
- `Transcript`: symbols in the order of the tokens, aligned by connectionist temporal classification;
- `Text`: a text that is generated token by token.

Every type merges the windows of a row (`merge`), decodes to plain data (`decode`) and gives metrics the pair that they
compare. Its confidence is calibrated, and it has prediction sets, where the type says so (`calibration`, `has_sets`).
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
