"""The trained model together with its transforms and target codecs, for prediction and saving."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.batching import Sample, collate, finish, is_absent
from mm.checkpoint.saving import save, try_save
from mm.messages import listing, near
from mm.model import MultimodalModel
from mm.types import Batch, DataSpec, EncodedInput, Features, TargetCodec, Transform


@dataclass
class TrainedModel:
    """A trained model with the transforms that convert raw inputs, as returned by `mm.load` and `mm.train`.

    Attributes:
        model: Encoders, fusion and heads.
        transforms: Input name to the transform of its raw values.
        target_codecs: Target name to the codec of its cells.
        spec: Inputs and targets of the data, with the class names.
        metrics: Head name to its metrics by name: metric objects, or their configs as stored in a model directory.
        columns: Column names of the training data, as in `datamodule.columns`; None: not known.
        task: Settings of the training task that evaluation needs, as plain data.
        split: Settings of the random split into training, validation and test rows.
        rows: Digests of the rows of each split on which the model was trained, validated and tested; empty if the
            directory was written by an older version of `mm`.
        card: Text of the model card, README.md.
        path: The model directory; None for a model that is not saved yet.
    """

    model: MultimodalModel
    transforms: dict[str, Transform]
    target_codecs: dict[str, TargetCodec]
    spec: DataSpec
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: Mapping[str, Any] | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    card: str = ""
    path: Path | None = None

    def __repr__(self) -> str:
        """Return four lines with the path, the inputs, the targets and the size of the model."""
        inputs = ", ".join(f"{name} ({data.modality})" for name, data in self.spec.inputs.items())
        kinds = {name: listing(data.classes) or data.kind for name, data in self.spec.targets.items()}
        targets = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        weights = list(self.model.parameters())
        where = f"{weights[0].device}, {weights[0].dtype}".replace("torch.", "") if weights else ""
        count = f"{sum(x.numel() for x in weights):,} weights ({where})"
        head = f"{type(self).__name__}({str(self.path)!r})" if self.path else f"{type(self).__name__}, not saved yet"
        return f"{head}\n  inputs:  {inputs}\n  targets: {targets}\n  size:    {count}"

    def save(self, path: str | Path) -> Path:
        """Write the model as a model directory that `mm.load` can load.

        Args:
            path: The model directory; an existing directory of the same name is replaced.

        Returns:
            The model directory.

        Raises:
            ValueError: If a part of the model does not know its constructor arguments.
        """
        save(path, **self._saved())
        return Path(path)

    def check_saving(self, path: Path) -> None:
        """Check that the model can be saved, by writing a model directory without weights and removing it again.

        Args:
            path: Path of the future model directory.

        Raises:
            ValueError: If the model can't be saved.
        """
        try_save(path, **self._saved())

    def _saved(self) -> dict[str, Any]:
        """Return the arguments of `save` except for the path."""
        return {
            "model": self.model,
            "transforms": self.transforms,
            "targets": self.target_codecs,
            "spec": self.spec,
            "metrics": self.metrics,
            "card": self.card,
            "columns": self.columns,
            "task": self.task,
            "split": self.split,
            "rows": self.rows,
        }

    @torch.inference_mode()
    def predict(self, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]], batch_size: int = 32) -> Any:
        """Predict the targets of one sample, or of a list of samples.

        Args:
            samples: A sample or a list of samples. A sample is a mapping from input name to a text, an image (path, PIL
                image or array), an audio clip (path, array or (array, sample rate)) or, for a tabular input, a mapping
                from column to cell. Inputs may be missing. A category that does not occur in the training rows is
                replaced by "other", with a warning.
            batch_size: Number of samples per batch.

        Returns:
            Target name to the decoded output of its head; for a list of samples, a list of these in the same order.

        Raises:
            ValueError: If an input name is unknown, if an input can't be read, or if a sample has no input.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size!r}, wanted a whole number from 1")
        if isinstance(samples, Mapping):
            return self.predict([samples])[0]
        if isinstance(samples, str) or not all(isinstance(sample, Mapping) for sample in samples):
            one = f"{{'{next(iter(self.transforms))}': ...}}"
            raise ValueError(f"got {samples!r:.80}, wanted a sample, such as {one}, or a list of them")
        if not len(self.model.heads):
            raise ValueError(f"{self.path or 'model'}: this model predicts nothing: it has no head")
        device = next(self.model.parameters()).device
        predictions = []
        for start in range(0, len(samples), batch_size):
            some = samples[start : start + batch_size]
            batch = finish(to_device(self.read(some, start), device), self.transforms)
            output = self.model(batch.inputs, batch.masks)
            answers = self.model.decode(self.model.merge(output, batch))
            predictions += [{name: rows[i] for name, rows in answers.items()} for i in range(len(some))]
        return predictions

    def read(self, samples: Sequence[Mapping[str, Any]], first: int = 0) -> Batch:
        """Convert raw samples to a batch without targets.

        Args:
            samples: Input name to raw value, per sample.
            first: Index of the first sample, for messages.

        Raises:
            ValueError: If an input name is unknown, if an input can't be read, or if a sample has no input.
        """
        rows = []
        for row, sample in enumerate(samples, first):
            for name in sample:
                if name not in self.transforms:
                    columns = self.columns or {}
                    own = next((known for known in self.transforms if columns.get(known) == name), None)
                    meant = f"; the column '{name}' is its '{own}'" if own else near(name, self.transforms)
                    raise ValueError(f"no input '{name}'; this model reads {', '.join(self.transforms)}{meant}")
            reads = {n: self.read_input(n, sample.get(n), row) for n in self.transforms}
            if not any(read is not None and read.windows for read in reads.values()):
                raise ValueError(f"sample {row} has no input; this model reads {', '.join(self.transforms)}")
            for name in (name for name, read in reads.items() if read is not None and read.unknown):
                warnings.warn(f"sample {row}: '{name}' names what the training rows do not have", stacklevel=4)
            rows.append(Sample(reads, {}, row - first))
        return collate(rows, self.transforms)

    def read_input(self, name: str, raw: Any, row: int) -> EncodedInput | None:
        """Convert one raw input, or return None if it is absent.

        Args:
            name: Name of the input.
            raw: The raw value.
            row: Index of the sample, for messages.

        Raises:
            ValueError: If the input can't be read.
        """
        try:
            return None if is_absent(raw) else self.transforms[name](raw)
        except ValueError as error:
            raise ValueError(f"sample {row}, '{name}': {error}") from None


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a copy of a batch on another device."""

    def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.to(device) for name, x in tensors.items()}

    inputs = {
        n: Features(*move(x._asdict()).values()) if isinstance(x, Features) else x.to(device)
        for n, x in batch.inputs.items()
    }
    return Batch(inputs, move(batch.masks), move(batch.targets), batch.row.to(device), move(batch.meta))
