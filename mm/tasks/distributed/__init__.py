"""Training on several processes: gathering of embeddings, and sharding of weights with FSDP2."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.tasks.distributed.sharding import FSDP2Strategy

__all__ = ["FSDP2Strategy"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
