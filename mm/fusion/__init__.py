"""Fusions, which combine the Features of several inputs into one Features.

Shapes in this package: B rows of a batch, T tokens of an input, D width (`model.embed_dim`), N inputs.
"""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.fusion.bottleneck import BottleneckFusion
    from mm.fusion.concat import ConcatFusion
    from mm.fusion.cross_attention import CrossAttentionFusion
    from mm.fusion.film import FilmFusion
    from mm.fusion.gated import GatedFusion
    from mm.fusion.late import LateFusion
    from mm.fusion.low_rank_tensor import LowRankTensorFusion
    from mm.fusion.mixture_of_experts import MixtureOfExpertsFusion
    from mm.fusion.mult import MulTFusion
    from mm.fusion.multiplicative import MultiplicativeFusion
    from mm.fusion.perceiver import PerceiverFusion
    from mm.fusion.product_of_experts import ProductOfExpertsFusion
    from mm.fusion.sum import SumFusion
    from mm.fusion.tensor import TensorFusion
    from mm.fusion.towers import IdentityFusion, TowerFusion, TowerSpec
    from mm.fusion.transformer import TransformerFusion

__all__ = [
    "BottleneckFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "FilmFusion",
    "GatedFusion",
    "IdentityFusion",
    "LateFusion",
    "LowRankTensorFusion",
    "MixtureOfExpertsFusion",
    "MulTFusion",
    "MultiplicativeFusion",
    "PerceiverFusion",
    "ProductOfExpertsFusion",
    "SumFusion",
    "TensorFusion",
    "TowerFusion",
    "TowerSpec",
    "TransformerFusion",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
