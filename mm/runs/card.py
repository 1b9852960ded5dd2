"""The model card: README.md of a model directory."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from mm.messages import command, markdown, plain


class DescribedModel(Protocol):
    """The attributes of a model that its model card describes: inputs, heads and parameters."""

    inputs: Any
    heads: Any

    def parameters(self) -> Iterable[Any]:
        """Return the parameters of the model."""
        ...


def model_card(
    words: Sequence[str], source: str, counts: Mapping[str, int], results: Mapping[str, float], model: DescribedModel
) -> str:
    """Return the model card, the content of README.md, of a model directory.

    Args:
        words: Words of the command that trained the model.
        source: Name of the training data.
        counts: Split name to its number of rows.
        results: Metric name to value.
        model: A MultimodalModel.

    Returns:
        Markdown text, in which names from the data are escaped so that they appear unchanged.
    """
    main = {n: v for n, v in results.items() if n.count("/") == 1 and n.startswith("test")}
    lines = [f"| {markdown(name)} | {format_number(value)} |" for name, value in main.items()] or [
        "| none measured | |"
    ]
    table = "\n".join(lines)
    rows = ", ".join(f"{name} {count}" for name, count in counts.items())
    packages = ", ".join(f"{name} {version(name)}" for name in ("mm", "torch", "lightning", "transformers", "timm"))
    parameters = sum(p.numel() for p in model.parameters())
    inputs = ", ".join(map(markdown, model.inputs))
    example = ", ".join(f"{plain(json.dumps(name, ensure_ascii=False))}: ..." for name in model.inputs)
    title = f"{', '.join(map(markdown, model.heads))} from {inputs}"
    use = f"predict({{{example}}})  # any subset of the inputs"
    if not len(model.heads):
        title = f"Vectors of {inputs}"
        use = "encode(inputs, masks)  # input -> Features, of which `pooled` counts"
    return f"""# {title}

A multimodal model of {parameters:,} parameters, trained by `mm`.

    import mm
    model = mm.load("this/folder")
    model.{use}

Data: {markdown(source)}; rows: {rows}.

Command:

    {command(*words)}

| metric | value |
|---|---|
{table}

Versions: {packages}.
"""


def format_number(value: float | None) -> str:
    """Format a number with four decimals, or as an integer if it is one; "" for None."""
    return "" if value is None else str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"
