"""A trained model with all that it needs to read raw inputs and to be saved."""

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
    """A trained model and all that it needs to read raw inputs.

    `mm.load` and `mm.train` return one.

    Attributes:
        model: Encoders, fusion and heads.
        transforms: Input name to the transform that reads raw values.
        target_codecs: Target name to the codec that reads the cells of a target.
        spec: Inputs and targets of the data, with the class names.
        metrics: Head name to its metrics by name: objects, or their configs as a model directory holds them.
        columns: Column map of the data that the model was trained on, None where it has none.
        task: Plain data of the training that evaluation needs.
        split: Settings by which validation and test rows were drawn.
        rows: Digests of the rows of each split that the model was trained, validated and tested on; none where an
            older version of mm has written the directory.
        card: Text of the README.md.
        path: The model directory; None for a model that was not saved yet.
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
        """Four lines: what the model reads, what it predicts, and its size."""
        inputs = ", ".join(f"{name} ({data.modality})" for name, data in self.spec.inputs.items())
        kinds = {name: listing(data.classes) or data.kind for name, data in self.spec.targets.items()}
        targets = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        weights = list(self.model.parameters())
        where = f"{weights[0].device}, {weights[0].dtype}".replace("torch.", "") if weights else ""
        count = f"{sum(x.numel() for x in weights):,} weights ({where})"
        head = f"{type(self).__name__}({str(self.path)!r})" if self.path else f"{type(self).__name__}, not saved yet"
        return f"{head}\n  inputs:  {inputs}\n  targets: {targets}\n  size:    {count}"

    def save(self, path: str | Path) -> Path:
        """Write the model as a model directory, which `mm.load` reads.

        Args:
            path: The directory; one of that name is replaced.

        Returns:
            The directory.

        Raises:
            ValueError: If a part of the model does not say how it was built.
        """
        save(path, **self._saved())
        return Path(path)

    def check_saving(self, path: Path) -> None:
        """Write a model directory without its weights and remove it again.

        Args:
            path: Where the directory would be.

        Raises:
            ValueError: If the model could not be saved.
        """
        try_save(path, **self._saved())

    def _saved(self) -> dict[str, Any]:
        """Return the arguments of `save`, but for the path."""
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
        """Predict the targets of one sample, or of a list of them.

        Args:
            samples: Input name -> a text, an image (path, PIL image, array), a sound (path, array, (array, rate)) or,
                of a table, column -> cell; any subset of the inputs. A category that the training rows do not have is
                read as "other", with a warning.
            batch_size: How many samples are read and predicted at once.

        Returns:
            Target name -> what its head decodes to; of a list of samples a list, in the same order.

        Raises:
            ValueError: If an input's name is unknown, an input can't be read, or a sample has none.
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
        """Read raw samples into a batch without targets; messages count the samples from `first`."""
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
        """None where it is absent. Errors: ValueError where it can't be read."""
        try:
            return None if is_absent(raw) else self.transforms[name](raw)
        except ValueError as error:
            raise ValueError(f"sample {row}, '{name}': {error}") from None


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device."""

    def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.to(device) for name, x in tensors.items()}

    inputs = {
        n: Features(*move(x._asdict()).values()) if isinstance(x, Features) else x.to(device)
        for n, x in batch.inputs.items()
    }
    return Batch(inputs, move(batch.masks), move(batch.targets), batch.row.to(device), move(batch.meta))
