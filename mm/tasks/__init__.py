"""Tasks: LightningModules that train and evaluate a model."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.tasks.base import Task
    from mm.tasks.contrastive import Contrastive
    from mm.tasks.pretraining import Pretraining
    from mm.tasks.supervised import Supervised

__all__ = ["Contrastive", "Pretraining", "Supervised", "Task"]

__getattr__, __dir__ = lazy_exports(__name__, __file__, ("distributed", "objectives", "optim"))
