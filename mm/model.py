"""The multimodal model: encoders, a fusion and heads, which are built elsewhere and passed in."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mm.absence import encode_present
from mm.configurable import Configurable, recorded_arguments, to_config
from mm.predictions import Calibration, Prediction
from mm.types import Batch, Encoder, Features, Fusion, Head, Output
from mm.windows import MergedOutput, merge_windows


class MultimodalModel(Configurable, nn.Module):
    """Encode every input, project it to one width, fuse the inputs, and predict the targets.

    Args:
        encoders: Input name to encoder.
        fusion: Fusion of the inputs.
        heads: Target name to head.
        embed_dim: Width D to which the features of each input are projected.
        shared_encoders: Input name to the input whose encoder and projection it shares, such as {hypothesis: premise}.

    Raises:
        ValueError: If an input that shares its encoder with another does not have an encoder.
    """

    encoders: Mapping[str, Encoder]  # each of these mappings is an nn.ModuleDict
    projections: Mapping[str, nn.Linear]
    heads: Mapping[str, Head]

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        fusion: Fusion,
        heads: Mapping[str, Head],
        embed_dim: int,
        shared_encoders: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self.shared_encoders = dict(shared_encoders or {})
        for name, owner in self.shared_encoders.items():
            if owner not in encoders:
                raise ValueError(f"model.shared_encoders.{name}: got '{owner}', wanted one of {', '.join(encoders)}")
        self.encoders = nn.ModuleDict(encoders)  # type: ignore
        self.projections = nn.ModuleDict(  # type: ignore[assignment]
            {name: nn.Linear(e.embed_dim, embed_dim) for name, e in encoders.items()}
        )
        self.fusion = fusion
        self.heads = nn.ModuleDict(heads)  # type: ignore
        self.calibration: dict[str, Calibration] = {}  # of the heads that `mm calibrate` has fitted

    def get_config(self) -> dict[str, Any]:
        """Return the configs of the current parts, and the other constructor arguments."""
        parts = {"encoders": dict(self.encoders.items()), "fusion": self.fusion, "heads": dict(self.heads.items())}
        return {name: to_config(value, name) for name, value in (recorded_arguments(self) | parts).items()}

    @property
    def inputs(self) -> list[str]:
        """Return the names of the inputs, in the order in which the fusion receives them."""
        return [*self.encoders, *self.shared_encoders]

    def encode(self, inputs: Mapping[str, Tensor | Features], masks: Mapping[str, Tensor]) -> dict[str, Features]:
        """Encode and project every input.

        Args:
            inputs: Input name to tensor, or to precomputed Features, as in Batch.
            masks: Input name to mask, as in Batch.

        Returns:
            Input name to projected Features.
        """
        return {name: self.encode_input(name, inputs[name], masks[name]) for name in self.inputs}

    def encode_input(self, name: str, x: Tensor | Features, mask: Tensor) -> Features:
        """Encode and project one input; see `encode`."""
        part = self.shared_encoders.get(name, name)
        if isinstance(x, Features):
            f = x._replace(mask=mask)
        else:
            encoder: Any = self.encoders[part]
            f = encode_present(encoder, encoder, x, mask)
        project = self.projections[part]
        return f._replace(tokens=project(f.tokens), pooled=project(f.pooled) * f.mask.any(1, keepdim=True))

    def predict(self, features: dict[str, Features], targets: Mapping[str, Tensor] | None = None) -> Output:
        """Fuse the projected Features of every input and predict the targets.

        Args:
            features: Input name to projected Features.
            targets: Target name to targets, for heads that need them in training; see Batch.

        Raises:
            ValueError: If a head does not return a type of `mm.predictions`.
        """
        fused = self.fusion(features)
        targets = targets or {}
        predictions = {name: head(fused, targets.get(name)) for name, head in self.heads.items()}
        for name, prediction in predictions.items():
            if not isinstance(prediction, Prediction):
                raise ValueError(
                    f"model.heads.{name}: {type(self.heads[name]).__name__} returned {type(prediction).__name__}, "
                    "wanted a type of mm.predictions, such as Categorical; see mm.heads.Head"
                )
        return Output(predictions, fused, features)

    def forward(
        self,
        inputs: Mapping[str, Tensor | Features],
        masks: Mapping[str, Tensor],
        targets: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Encode the inputs and predict the targets; see `encode` and `predict`."""
        return self.predict(self.encode(inputs, masks), targets)

    def merge(self, output: Output, batch: Batch) -> MergedOutput:
        """Merge the predictions of windows into one prediction per row, and apply the temperatures of calibrated heads.

        The rows are sorted by their index, and windows are merged as described in mm/windows.py. If every row has one
        window, the rows stay in their order.

        Args:
            output: Output for the batch.
            batch: The batch.
        """
        merged = merge_windows(output, batch, {name: head.input for name, head in self.heads.items()})
        return merged._replace(predictions=self.temper(merged.predictions))

    def temper(self, predictions: Mapping[str, Prediction]) -> dict[str, Prediction]:
        """Divide the logits of merged predictions by the temperatures that were fitted on such predictions."""
        tempered = dict(predictions)
        for name, fitted in self.calibration.items():
            if fitted.temperature != 1 and tempered[name].calibration == "temperature":
                tempered[name] = tempered[name].temper(fitted.temperature)
        return tempered

    def decode(self, merged: MergedOutput) -> dict[str, list[dict[str, Any]]]:
        """Decode the predictions of all heads: head name to one dictionary per row."""
        return {name: self.decode_head(name, merged) for name in self.heads}

    def decode_head(self, name: str, merged: MergedOutput) -> list[dict[str, Any]]:
        """Decode the predictions of one head, with calibrated confidences and prediction sets if it is calibrated."""
        head, prediction, fitted = self.heads[name], merged.predictions[name], self.calibration.get(name)
        rows = head.decode(prediction, merged.fused, merged.meta)
        if fitted is not None and prediction.calibration == "platt":
            rows = [fitted.revise_row(row, prediction, head.decoding) for row in rows]
        if fitted is not None and fitted.quantiles:
            sets, _ = prediction.prediction_sets(fitted.quantiles, head.decoding, merged.meta)
            rows = [row | one for row, one in zip(rows, sets, strict=True)]
        return rows
