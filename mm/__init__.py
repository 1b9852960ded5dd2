"""Train models that read text, see images and hear sound, in any mixture."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm.checkpoint import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`mm.load`, found on first use: importing `mm` imports no torch."""
    if name == "load":
        from mm.checkpoint import load

        return load
    raise AttributeError(f"module 'mm' has no attribute '{name}'")
