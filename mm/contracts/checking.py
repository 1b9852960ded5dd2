"""Contract check of one encoder, fusion or head: recognise its kind, build it and run the checks of this kind."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mm.contracts._demands import Result
from mm.contracts.encoder import check_encoder
from mm.contracts.fusion import check_fusion
from mm.contracts.head import check_head, examples
from mm.reports import Report, Table
from mm.targets.classes import ClassTarget
from mm.types import TargetCodec

EMBED_DIM = 32
# Constructor arguments that usually follow from the data, used if they are not given.
FILL: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "inputs": ["text", "vision", "audio"],
    "channels": 3,
    "size": (32, 32),
    "sample_rate": 8000,
    "cardinalities": (0, 5, 0, 7),
}


@dataclass(frozen=True, repr=False)
class ContractReport(Report):
    """Result of `check_part`.

    Attributes:
        results: Name of each check and its error message, or None if it passed.
    """

    results: Sequence[Result]

    @property
    def passed(self) -> bool:
        """Return whether every check passed."""
        return all(message is None for _, message in self.results)

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """Return the number of `checks` and the number of `failed` checks."""
        return {"checks": len(self.results), "failed": sum(message is not None for _, message in self.results)}

    def table(self) -> Table:
        """Return a table with one row per check."""
        return Table(
            ["check", "result", "message"], [(n, "ok" if m is None else "FAILED", m or "") for n, m in self.results]
        )


def check_part(
    part: type[nn.Module], arguments: Mapping[str, Any] | None = None, codec: TargetCodec | None = None
) -> ContractReport:
    """Check that an encoder, a fusion or a head fulfils the contract of its kind.

    Args:
        part: Class of the part.
        arguments: Constructor arguments. Those that usually follow from the data, such as `embed_dim`, are filled in if
            they are missing.
        codec: Target codec of a head; None: `ClassTarget`.

    Returns:
        The report, whose `passed` says whether every check passed.

    Raises:
        ValueError: If the part can't be built with these arguments, or is no encoder, fusion or head.

    Example:
        >>> import mm
        >>> from mm.fusion.sum import SumFusion
        >>> mm.check(SumFusion, {"reduce": "max"}).passed
        True
    """
    given, codec = dict(arguments or {}), codec or ClassTarget()
    head = callable(getattr(part, "loss", None))
    known = examples(codec).data
    parameters = inspect.signature(part).parameters
    usual = FILL | ({"classes": list(known.classes), **known.facts} if head else {})
    fill = {k: v for k, v in usual.items() if k in parameters and parameters[k].default is inspect.Parameter.empty}
    kwargs = {**fill, **given}
    try:
        inspect.signature(part).bind(**kwargs)
    except TypeError as error:
        hint = "; a target that is no class needs a codec, such as target_codec=mm.targets.regression.RegressionTarget"
        raise ValueError(
            f"{part.__name__}: {error}; it takes {', '.join(parameters)}, given as argument=value{hint if head else ''}"
        ) from error
    built = part(**kwargs)
    width = kwargs.get("embed_dim", EMBED_DIM)
    if head:
        return ContractReport(check_head(built, codec, width))
    if "input" in dir(built):
        return ContractReport(check_encoder(built))
    if "inputs" not in parameters and not hasattr(built, "inputs"):
        raise ValueError(
            f"{part.__name__} is neither a head, which has a method loss, nor a fusion, which takes the names of its "
            "inputs; as an encoder it lacks embed_dim and input. Wrap a plain module with mm.wrap(module, modality=..."
            ", embed_dim=...), or write these as docs/howto/own_encoder.md says"
        )
    return ContractReport(check_fusion(built, kwargs.get("inputs", FILL["inputs"]), width))


check = check_part  # its name in the API of the package: mm.check(MyEncoder)
