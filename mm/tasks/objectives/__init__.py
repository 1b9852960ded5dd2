"""Objectives of self-supervised pre-training."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.tasks.objectives.causal_lm import CausalLMObjective
    from mm.tasks.objectives.contrastive import ContrastiveObjective
    from mm.tasks.objectives.masked_audio import MaskedAudioObjective
    from mm.tasks.objectives.masked_lm import MaskedLMObjective
    from mm.tasks.objectives.masked_patch import MaskedPatchObjective

__all__ = [
    "CausalLMObjective",
    "ContrastiveObjective",
    "MaskedAudioObjective",
    "MaskedLMObjective",
    "MaskedPatchObjective",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
