"""A small data module and a small trained model, built in Python without Hydra, for tests of functions."""

import random
from pathlib import Path

import torch

from mm.checkpoint import TrainedModel
from mm.datamodules.manifest import ManifestDataModule
from mm.encoders.text.hashed_ngrams import TextHashedNgrams
from mm.fusion.sum import SumFusion
from mm.heads.classification import ClassificationHead
from mm.model import MultimodalModel
from mm.targets.classes import ClassTarget
from mm.transforms.text.tokens import TextTransform

INPUTS = {"text": "words", "title": {"column": "title", "modality": "text"}}
WORDS = {"good": "up", "bad": "down", "odd": "side"}


def write_rows(path: Path, count: int = 240, noise: float = 0.3) -> Path:
    """Write rows whose words, and less surely whose title, tell the mood; the last third has no title.

    Args:
        path: A CSV file.
        count: How many rows.
        noise: The fraction of rows whose mood is drawn by chance.
    """
    rng = random.Random(0)
    lines = ["id,words,title,mood,split"]
    for row in range(count):
        word = list(WORDS)[row % 3]
        mood = rng.choice(list(WORDS.values())) if rng.random() < noise else WORDS[word]
        title = "" if row >= 2 * count // 3 else f"a {word} one" if rng.random() < 0.8 else "a thing"
        split = ("train", "train", "val", "test")[row // 3 % 4]
        lines.append(f"r{row},it is {word}{'!' * (row % 4)},{title},{mood},{split}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def build_data(path: Path) -> ManifestDataModule:
    """Return the rows of `write_rows`, without transforms."""
    inputs = {"title": INPUTS["title"]}
    columns = {"text": "words", "inputs": inputs, "target": "mood", "id": "id", "split": "split"}
    return ManifestDataModule(
        path=str(path),
        columns=columns,
        batch_size=16,
        num_workers=0,
        on_error="raise",
        split={"val": 0.1, "test": 0.1, "seed": 0},
        seed=0,
        readers={"target": ClassTarget()},
    )


def train_model(data: ManifestDataModule, steps: int = 60, learning_rate: float = 0.05) -> TrainedModel:
    """Return a model that has been trained on the training rows for some steps, far too sure of itself."""
    torch.manual_seed(0)
    spec = data.table.spec
    transforms = {name: TextTransform("bytes") for name in spec.inputs}
    encoders = {name: TextHashedNgrams(8, 2, 256, 0.0, None, "mean") for name in spec.inputs}
    classes = list(spec.targets["target"].classes)
    heads = {"target": ClassificationHead(classes=classes, embed_dim=8)}
    model = MultimodalModel(encoders, SumFusion(inputs=list(encoders), reduce="mean"), heads, 8)
    data.use(transforms)
    batch = data.batch(data.rows("train").tolist())
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(steps):
        output = model(batch.inputs, batch.masks)
        total, count = model.heads["target"].loss(output.predictions["target"], batch.targets["target"], output.fused)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return TrainedModel(model.eval(), transforms, data.readers, spec, {"columns": None}, Path("nowhere"))
