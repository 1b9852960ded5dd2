"""Names of earlier versions: classes, constructor arguments, config keys, options of config groups, and verbs.

A saved config with an old name (in a model directory or run folder) is upgraded when it is read. If a user types an old
name, the message gives the current name. Each table is also a table of CHANGELOG.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DATA = "mm.data.module.DataModule"  # the base of every class of `mm.datamodules`
# Dotted name of a class in an earlier version -> its current name.
CLASSES = {
    "mm.encoders.text.bag.TextBag": "mm.encoders.text.hashed_ngrams.TextHashedNgrams",
    "mm.fusion.towers.Alone": "mm.fusion.towers.IdentityFusion",
    "mm.fusion.towers.Towers": "mm.fusion.towers.TowerFusion",
    "mm.callbacks.kept.Kept": "mm.callbacks.save_at_steps.SaveAtSteps",
    "mm.callbacks.resumable.Resumable": "mm.callbacks.periodic_checkpoint.PeriodicCheckpoint",
    "mm.callbacks.samples.Samples": "mm.callbacks.prediction_table.PredictionTable",
    "mm.tasks.objectives.causal_language.CausalLanguage": "mm.tasks.objectives.causal_lm.CausalLMObjective",
    "mm.tasks.objectives.contrastive.Contrast": "mm.tasks.objectives.contrastive.ContrastiveObjective",
    "mm.tasks.objectives.masked_language.MaskedLanguage": "mm.tasks.objectives.masked_lm.MaskedLMObjective",
    "mm.tasks.objectives.masked_patch.MaskedPatch": "mm.tasks.objectives.masked_patch.MaskedPatchObjective",
    "mm.tasks.objectives.masked_sound.MaskedSound": "mm.tasks.objectives.masked_audio.MaskedAudioObjective",
    "mm.tasks.schedule.Schedule": "mm.tasks.optim.schedule.Schedule",
    "mm.tasks.sharding.Sharded": "mm.tasks.distributed.sharding.FSDP2Strategy",
    "mm.transforms.audio.waveform.Waveform": "mm.transforms.audio.waveform.AudioTransform",
    "mm.transforms.tabular.row.Row": "mm.transforms.tabular.row.TabularTransform",
    "mm.transforms.text.tokens.Tokens": "mm.transforms.text.tokens.TextTransform",
    "mm.transforms.vision.pixels.Pixels": "mm.transforms.vision.pixels.ImageTransform",
    "mm.transforms.target.answers.Answers": "mm.targets.span.SpanTarget",
    "mm.transforms.target.boxes.Boxes": "mm.targets.boxes.BoxTarget",
    "mm.transforms.target.classes.Classes": "mm.targets.classes.ClassTarget",
    "mm.transforms.target.labels.Labels": "mm.targets.multilabel.MultilabelTarget",
    "mm.transforms.target.number.Number": "mm.targets.regression.RegressionTarget",
    "mm.transforms.target.spelling.Spelling": "mm.targets.transcript.TranscriptTarget",
    "mm.transforms.target.tags.Tags": "mm.targets.tags.TagTarget",
    "mm.transforms.target.written.Written": "mm.targets.text.TextTarget",
}
# What the data says of a target that is a text: former name -> current name. Heads take it as an argument.
FACTS = {"vocabulary": "vocab_size", "begin": "bos_token_id", "end": "eos_token_id", "longest": "max_length"}
GENERATION = FACTS | {"beams": "num_beams", "sample": "do_sample"}
CONTRASTIVE = {
    "scale": "init_logit_scale",
    "max_scale": "max_logit_scale",
    "same_label": "same_label_pairs",
    "block": "chunk_rows",
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
    "mm.data.module.DataModule": {  # and every class of mm.datamodules
        "balance": "balance_by",
        "balance_power": "balance_exponent",
        "buckets": "num_buckets",
        "budget": "max_batch_length",
        "mix": "mixing",
        "one_source": "homogeneous_batches",
        "whole": "draw_split",
        "window": "shuffle_window",
    },
    "mm.datamodules.manifest.ManifestDataModule": {"header": "column_names", "quotes": "quoting"},
    "mm.launch.slurm.SlurmRequest": {"prepare": "setup"},
    "mm.model.MultimodalModel": {"share": "shared_encoders"},
    "mm.transforms.audio.waveform.AudioTransform": {"overlap": "window_overlap", "too_long": "overflow"},
    "mm.transforms.text.tokens.TextTransform": {
        "markers": "marker_tokens",
        "overlap": "window_overlap",
        "places": "return_offsets",
        "too_long": "overflow",
    },
    "mm.transforms.vision.pixels.ImageTransform": {"frame": "return_original_size"},
    "mm.heads.seq2seq.Seq2SeqHead": GENERATION | {"heads": "num_heads", "layers": "num_layers"},
    "mm.heads.causal_lm.CausalLMHead": GENERATION | {"queries": "num_queries"},
    "mm.heads.ctc.CTCHead": {"beam": "beam_width"},
    "mm.heads.detection.DetectionHead": {
        "layers": "num_layers",
        "nearest": "top_k",
        "threshold": "score_threshold",
        "overlap": "nms_iou_threshold",
        "most": "max_detections",
    },
    "mm.losses.info_nce.InfoNCE": CONTRASTIVE | {"popularity": "logq_correction"},
    "mm.losses.siglip.SigLIP": CONTRASTIVE,
    "mm.losses.symile.Symile": CONTRASTIVE,
    "mm.metrics.answers.ExactMatch": {"plain": "normalize"},
    "mm.tasks.objectives.masked_audio.MaskedAudioObjective": {"span": "span_seconds"},
    "mm.metrics.ranking.Ranking": {"at": "top_k"},
    "mm.metrics.retrieval.Retrieval": {"at": "top_k"},
    "mm.transforms.corrupt.audio.AdditiveNoise": {"highest": "max_snr_db", "lowest": "min_snr_db"},
    "mm.transforms.corrupt.audio.Clipping": {"part": "fraction"},
    "mm.transforms.corrupt.audio.Dropout": {"part": "fraction", "seconds": "duration_s"},
    "mm.transforms.corrupt.audio.Reverberation": {"seconds": "rt60", "echo": "wet_gain"},
    "mm.transforms.corrupt.text.Typos": {"part": "fraction"},
    "mm.transforms.corrupt.text.WordDrop": {"part": "fraction"},
    "mm.transforms.corrupt.text.WordSwap": {"part": "fraction"},
    "mm.transforms.corrupt.vision.Occlusion": {"part": "fraction"},
    "mm.heads.span.SpanHead": {"longest": "max_answer_length", "best": "n_best"},
    "mm.targets.text.TextTarget": {"vocabulary": "vocab_size"},
    "mm.targets.boxes.BoxTarget": {"flat": "degenerate_boxes", "visible": "min_visibility"},
    "mm.targets.multilabel.MultilabelTarget": {"unlabelled": "empty_value"},
}
# Current dotted name of a class -> {current name of an argument: {former value: current value}}.
VALUES: dict[str, dict[str, dict[Any, Any]]] = {
    "mm.data.module.DataModule": {
        "draw_split": {False: True, True: False},
        "mixing": {"equal": "uniform", "size": "proportional"},
    },
    "mm.targets.boxes.BoxTarget": {"degenerate_boxes": {"refuse": "error"}},
    "mm.targets.transcript.TranscriptTarget": {"units": {"letters": "characters"}},
    "mm.transforms.audio.waveform.AudioTransform": {"overflow": {"refuse": "error"}},
    "mm.transforms.text.tokens.TextTransform": {"overflow": {"refuse": "error"}},
    "mm.metrics.answers.ExactMatch": {"normalize": {True: "casefold", False: "squad"}},
}
# Former config key that is no constructor argument of the part above it -> the current key. `*` is any name.
KEYS: dict[str, str] = {
    "hydra.launcher.prepare": "hydra.launcher.setup",
    "model.heads.*.reads": "model.heads.*.target_codec",
    "peft.also": "peft.modules_to_save",
    "peft.start": "peft.adapter_path",
    "size": "shard_size_mb",  # of mm shard
    "model.heads.*.metrics.boxes": "model.heads.*.metrics.detection",
    "zero_shot.names": "zero_shot.class_names",
    "task.zero_shot.names": "task.zero_shot.class_names",
    "few_shot.draws": "few_shot.num_trials",
    "robustness.only": "robustness.corruptions",
    "robustness.corruptions.*": "robustness.available.*",
    "task.val_subsets": "task.modality_subsets.val",
    "task.test_subsets": "task.modality_subsets.test",
    "task.unimodal_weight": "task.unimodal_loss_weight",
    "task.teachers": "task.distillation.teachers",
    "task.teacher_weight": "task.distillation.weight",
    "callbacks.kept": "callbacks.save_at_steps",
    "callbacks.resumable": "callbacks.periodic_checkpoint",
    "callbacks.bar": "callbacks.progress_bar",
    "callbacks.samples": "callbacks.prediction_table",
    "most": "max_batch_size",
    "max_gib": "memory_limit_gib",
    "reserve": "memory_headroom",
    "conformal": "alpha",  # of mm calibrate
}
# Former option of a config group, "group/option" -> the current option.
OPTIONS: dict[str, str] = {
    "datamodule/transforms/vision/crops": "random_resized_crop",
    "datamodule/transforms/vision/photo": "trivial_augment",
    "datamodule/transforms/vision/shift": "affine",
    "datamodule/transforms/vision/slides": "microscopy",
    "model/encoders/text/bag": "hashed_ngrams",
    "callbacks/kept": "save_at_steps",
    "task/causal_language": "causal_lm",
    "task/masked_language": "masked_lm",
    "task/masked_sound": "masked_audio",
    "task/objectives/causal_language": "causal_lm",
    "task/objectives/masked_language": "masked_lm",
    "task/objectives/masked_sound": "masked_audio",
}
# Former verb -> the current one.
VERBS: dict[str, str] = {"find_batch": "scale_batch"}


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


def arguments_of(name: str) -> dict[str, str]:
    """Return the former argument names of a class, including those of its base class, and their current names."""
    shared = ARGUMENTS[DATA] if name.startswith("mm.datamodules.") else {}
    return shared | ARGUMENTS.get(name, {})


def values_of(name: str) -> dict[str, dict[Any, Any]]:
    """Return the former values of a class's arguments, including its base class's, and their current values."""
    shared = VALUES[DATA] if name.startswith("mm.datamodules.") else {}
    return shared | VALUES.get(name, {})


def current_argument(name: str, argument: str) -> str | None:
    """Return the current name of a former constructor argument; None if it was not renamed.

    Args:
        name: Dotted name of the class, former or current.
        argument: Former name of the argument.
    """
    return arguments_of(current_class(name)).get(argument)


def upgrade(node: Any, changes: dict[str, str] | None = None) -> Any:
    """Return a saved config with the current names of classes, arguments and values.

    Args:
        node: Plain data.
        changes: Is filled with each former name and its current name, such as {"Fusion.heads": "num_heads"}.
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
    arguments, values, name = arguments_of(current), values_of(current), current.rpartition(".")[2]
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
    """Return the current name of a former config key; None if it was not renamed.

    Args:
        key: The dotted key, such as "model.fusion.heads".
        target_of: Function that returns the `_target_` of the part at a dotted key; None if there is no such part.
    """
    parts = key.split(".")
    for end in range(len(parts), 0, -1):  # the key, or one of the mappings that contain it
        outer, rest = parts[:end], parts[end:]
        target = target_of(".".join(outer[:-1]))
        argument = current_argument(target, outer[-1]) if target else None
        renamed = [*outer[:-1], argument] if argument is not None else _renamed(outer)
        if renamed is not None:
            current = ".".join([*renamed, *rest])
            return current_key(current, target_of) or current
    return None


def upgrade_keys(config: dict[str, Any], changes: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the config of a run with the current names of the keys in `KEYS`.

    Args:
        config: Plain data.
        changes: Is filled with each former key and its current name.
    """
    changes = {} if changes is None else changes

    def walk(node: Any, path: list[str]) -> Any:
        if not isinstance(node, dict):
            return node
        upgraded: dict[str, Any] = {}
        for name, child in node.items():
            renamed = _renamed([*path, name])
            if renamed is None:
                upgraded[name] = walk(child, [*path, name])
            else:
                changes[".".join([*path, name])] = ".".join(renamed)
                moved.append((renamed, child))
        return upgraded

    moved: list[tuple[list[str], Any]] = []
    upgraded = walk(config, [])
    for path, child in moved:
        node = upgraded
        for name in path[:-1]:
            node[name] = dict(node.get(name) or {})
            node = node[name]
        node[path[-1]] = child
    return upgraded


def _renamed(parts: list[str]) -> list[str] | None:
    """Return the current path of a former key; None if it was not renamed."""
    for former, current in KEYS.items():
        pattern = former.split(".")
        if len(pattern) == len(parts) and all(map(_matches, pattern, parts)):
            names = iter([part for name, part in zip(pattern, parts, strict=True) if name == "*"])
            return [next(names) if name == "*" else name for name in current.split(".")]
    return None


def _matches(pattern: str, part: str) -> bool:
    return pattern in ("*", part)
