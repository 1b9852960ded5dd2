"""The multimodal model: encoders, a fusion and heads, which are built elsewhere and passed in."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm.absence import encode_present
from mm.batching import PER_ROW_META
from mm.configurable import Configurable, recorded_arguments, to_config
from mm.predictions import Calibration, Prediction
from mm.tensors import pick, unlabelled_value
from mm.types import Batch, Encoder, Features, Fusion, Head, Output
from mm.windows import MergedOutput, first_windows, side_by_side, windows_of


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
        row, predictions = batch.row, output.predictions
        first = torch.arange(len(row), device=row.device)
        rows, group = row.unique(return_inverse=True)
        if len(rows) == len(row):
            return MergedOutput(self.temper(predictions), output.fused, batch.targets, batch.meta, row, first)
        first = first_windows(group, len(rows))
        with torch.autocast(row.device.type, enabled=False):  # autocast would round means to three digits
            merged = {name: self.merge_head(name, output, group, len(rows)) for name in predictions}

        def joined(x: Tensor, of: str | None, fill: float) -> Tensor:
            """of: an input, if x tells something of its tokens."""
            if of is None:
                return x[first]
            tokens = output.features.get(of, output.fused).tokens.shape[1]
            return side_by_side(x, group, len(rows), max(x.shape[1], tokens), fill)

        # A target without a head, such as the label by which contrastive learning excludes pairs, belongs to the row.
        inputs = {name: head.input for name, head in self.heads.items()}
        targets = {name: joined(x, inputs.get(name), unlabelled_value(x)) for name, x in batch.targets.items()}
        parts = {key: key.rpartition("/") for key in batch.meta}
        owners = {key: None if what in PER_ROW_META else name for key, (name, _, what) in parts.items()}
        meta = {key: joined(x, owners[key], -1) for key, x in batch.meta.items()}
        return MergedOutput(self.temper(merged), pick(output.fused, first), targets, meta, rows, first)

    def merge_head(self, name: str, output: Output, group: Tensor, count: int) -> Prediction:
        """Merge the predictions of one head for several windows.

        A head on the pooled vector uses only windows with tokens. A head on the tokens of an input uses all windows, so
        that the tokens stay aligned with their targets, and ignores padding itself.

        Args:
            name: Name of the head.
            output: Output for the windows.
            group: Index of the row that each window belongs to, (B,).
            count: Number of rows.
        """
        head, prediction = self.heads[name], output.predictions[name]
        if head.input is not None:
            return prediction.merge(group, count)
        _, counts = windows_of(output.features or {"": output.fused}, [*output.features] or [""], group)
        return pick(prediction, counts).merge(group[counts], count)

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
