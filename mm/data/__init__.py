"""Tables of raw inputs and targets: read, checked, split, sampled, mixed, sharded, and batched."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.data.checking import DataFault, DataReport, check_data
    from mm.data.module import DataModule
    from mm.data.table import Fault, Table

__all__ = ["DataFault", "DataModule", "DataReport", "Fault", "Table", "check_data"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
