"""Contracts of encoders, fusions and heads: checks that are used by the tests of `mm` and by `mm check`."""

from mm.contracts._demands import Result
from mm.contracts.checking import ContractReport, check, check_part
from mm.contracts.encoder import check_encoder
from mm.contracts.fusion import check_fusion, random_features
from mm.contracts.head import check_head, examples

__all__ = [
    "ContractReport",
    "Result",
    "check",
    "check_encoder",
    "check_fusion",
    "check_head",
    "check_part",
    "examples",
    "random_features",
]
