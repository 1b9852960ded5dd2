"""Heads: each predicts one target from the fused features."""

from mm.heads.base import Head

__all__ = ["Head"]
