"""Contrastive losses over two or more inputs.

Shapes in this package: b rows of this process, G rows of all processes, N inputs (or towers of inputs) of a row, D
width, C candidates.
"""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.losses.info_nce import InfoNCE
    from mm.losses.siglip import SigLIP
    from mm.losses.symile import Symile

__all__ = ["InfoNCE", "SigLIP", "Symile"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
