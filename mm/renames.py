"""Names of earlier versions: classes, constructor arguments, config keys, options of config groups, and verbs.

A saved config with an old name is upgraded when it is read (model directories and run folders). An old name that a
user types is answered with the current one. Each table is a table of CHANGELOG.md as well.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
# Dotted name of a class in an earlier version -> its current name.
CLASSES = {
    "mm.encoders.text.bag.TextBag": "mm.encoders.text.hashed_ngrams.TextHashedNgrams",
    "mm.fusion.towers.Alone": "mm.fusion.towers.IdentityFusion",
    "mm.fusion.towers.Towers": "mm.fusion.towers.TowerFusion",
    "mm.tasks.schedule.Schedule": "mm.tasks.optim.schedule.Schedule",
    "mm.tasks.sharding.Sharded": "mm.tasks.distributed.sharding.FSDP2Strategy",
    "mm.transforms.target.answers.Answers": "mm.targets.span.SpanTarget",
    "mm.transforms.target.boxes.Boxes": "mm.targets.boxes.BoxTarget",
    "mm.transforms.target.classes.Classes": "mm.targets.classes.ClassTarget",
    "mm.transforms.target.labels.Labels": "mm.targets.multilabel.MultilabelTarget",
    "mm.transforms.target.number.Number": "mm.targets.regression.RegressionTarget",
    "mm.transforms.target.spelling.Spelling": "mm.targets.transcript.TranscriptTarget",
    "mm.transforms.target.tags.Tags": "mm.targets.tags.TagTarget",
    "mm.transforms.target.written.Written": "mm.targets.text.TextTarget",
}
# Current dotted name of a class -> {former name of a constructor argument: its current name}. A former name is not used
# again for another argument of the same class.
ARGUMENTS: dict[str, dict[str, str]] = {
    "mm.encoders.audio.conformer.AudioConformer": {"heads": "num_heads", "layers": "num_layers"},
    "mm.encoders.tabular.mlp.TabularMLP": {"layers": "num_layers", "sizes": "cardinalities"},
    "mm.encoders.tabular.transformer.TabularTransformer": {
        "heads": "num_heads",
        "layers": "num_layers",
        "sizes": "cardinalities",
    },
    "mm.encoders.text.hashed_ngrams.TextHashedNgrams": {"buckets": "num_hash_buckets"},
    "mm.encoders.text.huggingface.HuggingFaceText": {"markers": "marker_tokens"},
    "mm.encoders.text.mlp.TextMLP": {"buckets": "num_hash_buckets", "layers": "num_layers"},
    "mm.encoders.text.recurrent.TextRecurrent": {"layers": "num_layers", "vocabulary": "vocab_size"},
    "mm.encoders.text.transformer.TextTransformer": {
        "heads": "num_heads",
        "layers": "num_layers",
        "vocabulary": "vocab_size",
    },
    "mm.fusion.bottleneck.BottleneckFusion": {
        "bottlenecks": "num_bottleneck_tokens",
        "heads": "num_heads",
        "layers": "num_layers",
    },
    "mm.fusion.cross_attention.CrossAttentionFusion": {"heads": "num_heads", "layers": "num_layers"},
    "mm.fusion.film.FilmFusion": {"layers": "num_layers"},
    "mm.fusion.mult.MulTFusion": {"heads": "num_heads", "layers": "num_layers"},
    "mm.fusion.perceiver.PerceiverFusion": {"heads": "num_heads", "latents": "num_latents", "layers": "num_layers"},
    "mm.fusion.product_of_experts.ProductOfExpertsFusion": {"sample": "stochastic"},
    "mm.fusion.transformer.TransformerFusion": {"heads": "num_heads", "layers": "num_layers"},
    "mm.transforms.text.tokens.Tokens": {"markers": "marker_tokens"},
}
# Current dotted name of a class -> {current name of an argument: {former value: current value}}.
VALUES: dict[str, dict[str, dict[Any, Any]]] = {}
# Former config key that is no constructor argument of the part above it -> the current key.
KEYS: dict[str, str] = {}
# Former option of a config group, "group/option" -> the current option.
OPTIONS: dict[str, str] = {"model/encoders/text/bag": "hashed_ngrams"}
# Former verb -> the current one.
VERBS: dict[str, str] = {}


def current_class(name: str) -> str:
    """Return the current dotted name of a class: `datamodules.digits.X` is `mm.datamodules.digits.X`.

    Args:
        name: A dotted name, as in `_target_`. A user's own module of `datamodules` keeps its name.
    """
    if name in CLASSES:
        return CLASSES[name]
    parts = name.split(".")
    ours = parts[0] == "datamodules" and len(parts) > 2 and (PACKAGE / "datamodules" / f"{parts[1]}.py").is_file()
    return current_class(f"mm.{name}") if ours else name


def current_argument(name: str, argument: str) -> str | None:
    """Return the current name of a former constructor argument, None where there is none.

    Args:
        name: Dotted name of the class, a former or the current one.
        argument: Former name of the argument.
    """
    return ARGUMENTS.get(current_class(name), {}).get(argument)


def upgrade(node: Any, changes: dict[str, str] | None = None) -> Any:
    """Return a saved config with the current names of classes, arguments and values.

    Args:
        node: Plain data.
        changes: Receives each former name and the current one, such as {"Fusion.heads": "num_heads"}.
    """
    changes = {} if changes is None else changes
    if isinstance(node, list):
        return [upgrade(child, changes) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: upgrade(child, changes) for key, child in node.items()}
    target = node.get("_target_")
    if not isinstance(target, str):
        return node
    current = current_class(target)
    if current != target:
        changes[target] = current
    arguments, values, name = ARGUMENTS.get(current, {}), VALUES.get(current, {}), current.rpartition(".")[2]
    upgraded: dict[str, Any] = {}
    for former, value in node.items():
        key = str(arguments.get(former, former))
        if key != former:
            changes[f"{name}.{former}"] = key
        known = values.get(key, {})
        if isinstance(value, str | int | float | None) and value in known:
            changes[f"{name}.{key}={value}"] = str(known[value])
            value = known[value]
        upgraded[key] = value
    return {**upgraded, "_target_": current}


def current_key(key: str, target_of: Callable[[str], str | None]) -> str | None:
    """Return the current name of a former config key, None where it never was one.

    Args:
        key: The dotted key, such as "model.fusion.heads".
        target_of: Gives the `_target_` of the part at a dotted key, None where there is no such part.
    """
    parts = key.split(".")
    for end in range(len(parts), 0, -1):  # the key, or one of the mappings that it lies in
        head, rest = ".".join(parts[:end]), parts[end:]
        if head in KEYS:
            return ".".join([KEYS[head], *rest])
        target = target_of(".".join(parts[: end - 1]))
        argument = current_argument(target, parts[end - 1]) if target else None
        if argument is not None:
            return ".".join([*parts[: end - 1], argument, *rest])
    return None
