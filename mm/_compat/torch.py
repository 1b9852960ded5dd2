"""Names of torch that have no public path (torch 2.11 to 2.14)."""

from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["BatchNorm", "TorchDispatchMode", "tree_leaves", "tree_map_only"]
