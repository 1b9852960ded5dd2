"""A second reading of data whose split was drawn, as data for a trained model."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from mm.types import DataSpec, TargetCodec, TargetData

if TYPE_CHECKING:
    from mm.data.module import DataModule

Data = TypeVar("Data", bound="DataModule")


def reread_without_split(data: Data, spec: DataSpec, codecs: Mapping[str, TargetCodec]) -> Data:
    """Return a copy of some data that is read again for a trained model, without drawing a split.

    Args:
        data: The data, which is not changed.
        spec: Inputs and targets of the trained model.
        codecs: Target name to the codec of its cells.

    Returns:
        The copy. If no column states the splits, all of its rows are test rows.
    """
    reread = copy(data)
    reread.trainer = None
    reread.trained, reread.draw_split = True, False
    reread.split = replace(data.split, rows=None)  # the number of training rows to keep; there are none
    known: dict[str, TargetData | None] = dict(spec.targets)
    reread.known, reread.readers = known, dict(codecs)
    reread.faults, reread.notes, reread.training, reread.begun = {}, set(), None, None
    for name in ("table", "_fingerprint"):
        reread.__dict__.pop(name, None)
    return reread
