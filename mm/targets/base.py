"""Protocol of target codecs whose targets depend on how the transform has encoded an input."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from mm.protocols import Offers
from mm.types import EncodedInput


class TargetTruncatedError(ValueError):
    """Raised if the target of a row lies in a part of the input that was truncated.

    Such a row can't be used for training, but it is still evaluated.
    """


@runtime_checkable
class AlignedCodec(Protocol, metaclass=Offers):
    """Protocol of a target codec whose targets depend on how an input was encoded, such as one tag per token."""

    input: str  # name of the input whose encoded form determines the targets
    texts: Sequence[str]  # if the input is a text: texts that belong to `examples`
    # Required modality of the input, and the argument of its transform that adds the meta which `align` and `decode`
    # need; None: they need no meta.
    needs: tuple[str, str] | None

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """Return the target of each window of a row.

        Args:
            target: Target of the row, as `TargetCodec.fit` has encoded it.
            read: The encoded input of the row, with its windows and their meta.

        Returns:
            One target per window.

        Raises:
            TargetTruncatedError: If the input was truncated or split into windows, and no window contains the target.
            ValueError: If the target does not fit the input.
        """
        ...
