"""Target codecs whose targets follow from how an input was read."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from mm.protocols import Offers
from mm.types import EncodedInput


class TargetTruncatedError(ValueError):
    """A row's target lies in a part of its input that was truncated: it can't be learnt, but the row is measured."""


@runtime_checkable
class AlignedCodec(Protocol, metaclass=Offers):
    """A target codec whose targets follow from how an input was read, such as a tag per token."""

    input: str  # whose Transform gives the meta that it needs
    texts: Sequence[str]  # of the input, where it is one, that its examples go with
    # Modality that the input has to be of, and its Transform's argument that makes it tell the meta which `align` and
    # decoding need; None: they need nothing.
    needs: tuple[str, str] | None

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """A row's target -> one for each window.

        Raises:
            TargetTruncatedError: If the input was truncated or is read in windows, and none holds the target.
            ValueError: If the target does not fit the input.
        """
        ...
