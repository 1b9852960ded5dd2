"""The one door to trained models: a plain directory that loads without Lightning or pickles."""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mm.batching import Sample, collate, finish, is_absent
from mm.extras import require
from mm.files import discard, unused, whole, yaml_text
from mm.messages import listing, markdown, near
from mm.model import MultimodalModel
from mm.predictions import Calibration
from mm.transforms.tabular.row import Row
from mm.transforms.text.tokens import Tokens, load_tokenizer
from mm.types import (
    FORMAT,
    Batch,
    ColumnData,
    DataSpec,
    Features,
    InputData,
    Read,
    Rebuilt,
    TargetData,
    TargetTransform,
    Transform,
)
from mm.untrusted import (
    BUILT,
    anchor_tokenizers,
    check_links,
    check_sections,
    check_sources,
    children,
    installed_packages_only,
    read_labels,
)

ROWS = "rows.safetensors"  # digests of the rows of each split
CALIBRATED = "Calibration: "  # begins a line of the model card
# Whose classes may be built on loading; nothing else of a config is ever called.
ROOMS = ("encoders", "fusion", "heads", "layers", "losses", "metrics", "transforms", "model")
ALLOWED = (*(f"mm.{room}." for room in ROOMS), "torch.nn.", "torchvision.transforms.", "torchaudio.transforms.")
# What building a model may allocate: a multiple of its weights' size, and room for tables that are not saved.
ROOM = 4, 1 << 30
FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "new_empty", "new_zeros")
TENSORS = 20, 5000  # so many for each that is saved, and some more
LONGEST = 400  # letters of a message about a stranger's file
DOTTED = re.compile(r"\w+(\.\w+)+")
OPTIONAL = ("timm", "transformers", "torchaudio", "torchvision")  # packages that only some models need
# The modules of torchmetrics whose metrics neither download nor load a model.
METRICS = (
    *("aggregation", "classification", "clustering", "detection", "nominal", "regression", "retrieval"),
    *(f"text.{name}" for name in ("bleu", "cer", "chrf", "edit", "eed", "mer", "perplexity", "squad", "ter", "wer")),
    *("text.wil", "text.wip"),
)


@dataclass
class LoadedModel:
    """A trained model and all that it needs to read raw inputs."""

    model: MultimodalModel
    transforms: dict[str, Transform]
    readers: dict[str, TargetTransform]
    spec: DataSpec
    config: dict[str, Any]  # plain data, as in the directory's config.yaml, with the label map filled in
    path: Path

    def __repr__(self) -> str:
        """A few lines: what it reads, what it predicts, and its size."""
        inputs = ", ".join(f"{name} ({data.modality})" for name, data in self.spec.inputs.items())
        kinds = {name: listing(data.classes) or data.kind for name, data in self.spec.targets.items()}
        targets = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        weights = list(self.model.parameters())
        where = f"{weights[0].device}, {weights[0].dtype}".replace("torch.", "") if weights else ""
        count = f"{sum(x.numel() for x in weights):,} weights ({where})"
        head = f"{type(self).__name__}('{self.path}')"
        return f"{head}\n  inputs:  {inputs}\n  targets: {targets}\n  size:    {count}"

    @property
    def rows(self) -> dict[str, Tensor]:
        """Digests of the rows that it was trained, validated and tested on; none where an older mm has written it."""
        return read_tensors(self.path / ROWS) if (self.path / ROWS).is_file() else {}

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
            raise ValueError(f"{self.path}: this model predicts nothing: it has no head")
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
                    columns = self.config["columns"] or {}
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

    def read_input(self, name: str, raw: Any, row: int) -> Read | None:
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


def save(
    path: Path,
    model: MultimodalModel,
    model_config: dict[str, Any],
    transforms: Mapping[str, Transform],
    transform_configs: dict[str, Any],
    reader_configs: dict[str, Any],
    spec: DataSpec,
    columns: dict[str, Any] | None,
    metrics: dict[str, Any],
    card: str,
    task: dict[str, Any] | None = None,
    split: dict[str, Any] | None = None,
    rows: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model directory, beside its name, and rename it; one that is there already is replaced.

    model_config, transform_configs, reader_configs: the finished configs that they, and what reads the targets, were
    built from; columns: as the datamodule's;
    metrics: the configs of each head's metrics; card: the text of its README.md; task: what is kept of the training;
    split: how validation and test rows are drawn of data that names none; rows: digests of the
    rows of each split, as in mm/data/fingerprint.py.
    """
    with whole(path) as part:
        describe(
            part,
            model,
            model_config,
            transforms,
            transform_configs,
            reader_configs,
            spec,
            columns,
            metrics,
            card,
            task,
            split,
            rows,
        )
        save_model(model, str(part / "model.safetensors"))
        for file in part.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes them for their owner alone


def try_save(path: Path, *args: Any) -> None:
    """Write a model directory without its weights and remove it again, so that a run does not fail at its end.

    Args:
        path: Where the directory would be.
        *args: As those of `save`.

    Raises:
        ValueError: If a config of a part can't be written, such as an argument that is no plain data.
    """
    part = unused(path)
    try:
        describe(part, *args)
        config = yaml.load((part / "config.yaml").read_text(encoding="utf-8"), PlainLoader)
        for name in (*BUILT, "spec"):
            check_sources(part, config[name], name)
        check_sections(config)
    except (TypeError, ValueError, yaml.YAMLError, AttributeError, KeyError) as error:
        told = str(error).replace(f"{part}: ", "")
        raise ValueError(
            f"the model directory of this run could not be written and loaded again: {told}; arguments of parts are "
            "plain data, and a part that begins with weights of others inherits mm.types.Rebuilt"
        ) from error
    finally:
        discard(part)


def describe(
    part: Path,
    model: MultimodalModel,
    model_config: dict[str, Any],
    transforms: Mapping[str, Transform],
    transform_configs: dict[str, Any],
    reader_configs: dict[str, Any],
    spec: DataSpec,
    columns: dict[str, Any] | None,
    metrics: dict[str, Any],
    card: str,
    task: dict[str, Any] | None = None,
    split: dict[str, Any] | None = None,
    rows: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all of a model directory but the weights; the arguments are those of `save`."""
    part.mkdir(parents=True)
    labels = {name: list(t.classes) for name, t in spec.targets.items()}
    inputs = {name: asdict(data) for name, data in spec.inputs.items()}
    for name, data in inputs.items():  # thousands of classes are read ten times as fast from JSON
        labels |= {f"{name}/{column['name']}": column.pop("classes") for column in data["columns"] or ()}
    model_config = without_sources(model_config, model)
    for name in model_config["heads"]:
        if "classes" in model_config["heads"][name]:
            model_config["heads"][name]["classes"] = None  # they are in labels.json
    targets = {n: {k: v for k, v in asdict(t).items() if k != "classes"} for n, t in spec.targets.items()}
    transform_configs = keep_transforms(part, transforms, transform_configs, model_config["encoders"])
    reader_configs = keep_readers(part, targets, reader_configs, model_config["heads"])
    config = {
        "format": FORMAT,
        "requires": {name: version(name) for name in ("mm", "torch", *needed(model))},
        "model": model_config,
        "transforms": transform_configs,
        "readers": reader_configs,
        "spec": {"inputs": inputs, "targets": targets},
        "columns": columns,
        "metrics": metrics,
        "task": task or {},
        "split": split or {},
    }
    write_config(part, config)
    (part / "labels.json").write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    (part / "README.md").write_text(card, encoding="utf-8")
    if rows:
        save_file(dict(rows), part / ROWS)


def keep_transforms(
    part: Path, transforms: Mapping[str, Transform], configs: dict[str, Any], encoders: dict[str, Any]
) -> dict[str, Any]:
    """The configs of transforms that are built from what the directory has: their tokenizers are written into it.

    encoders: their configs, which name the same tokenizer
    """
    configs = json.loads(json.dumps(configs))
    for name, transform in transforms.items():
        if isinstance(transform, Row):
            configs[name]["columns"] = None  # they are in the spec
        if isinstance(transform, Tokens) and transform.tokenizer is not None:
            transform.tokenizer.save_pretrained(part / "tokenizer" / name)
            configs[name]["tokenizer"] = f"tokenizer/{name}"
            if "tokenizer" in encoders.get(name, {}):  # what it was trained from may move
                encoders[name]["tokenizer"] = f"tokenizer/{name}"
    return configs


def keep_readers(part: Path, targets: dict[str, Any], configs: dict[str, Any], heads: dict[str, Any]) -> dict[str, Any]:
    """As keep_transforms, of what reads the targets; their facts and the configs of heads name the same tokenizer."""
    configs = json.loads(json.dumps(configs))
    for name, target in targets.items():
        written = target["facts"].get("tokenizer")
        if written is not None:
            load_tokenizer(written).save_pretrained(part / "labels" / name)
            use_tokenizer(f"labels/{name}", heads[name], configs[name], target["facts"])
    return configs


def calibrate(path: Path, calibration: Mapping[str, Calibration], told: str) -> None:
    """Give a model directory, beside its name and renamed, what was learnt of its heads' confidence, none of old.

    told: the line of its README.md
    """
    with whole(path) as part:
        shutil.copytree(path, part)
        config = read_config(part)
        write_config(part, config | {"calibration": {name: asdict(fitted) for name, fitted in calibration.items()}})
        card = (part / "README.md").read_text(encoding="utf-8").splitlines()
        kept = "\n".join(line for line in card if not line.startswith(CALIBRATED)).rstrip()
        (part / "README.md").write_text(f"{kept}\n\n{CALIBRATED}{markdown(told)}\n", encoding="utf-8")


def write_config(path: Path, config: dict[str, Any]) -> None:
    """The config.yaml of a model directory."""
    (path / "config.yaml").write_text(yaml_text(plain(config)), encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Of a model directory. Errors: ValueError where it is none, or of another format."""
    if (path / "model" / "config.yaml").is_file():
        raise ValueError(f"{path} is a run folder; its model directory is {path / 'model'}")
    for name in ("config.yaml", "model.safetensors"):
        if not (path / name).is_file():
            raise ValueError(f"no model directory at {path}: it has no {name}; a run leaves one as outputs/RUN/model")
    try:
        config = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path / 'config.yaml'}: is no YAML: {told:.{LONGEST}}") from None
    if not isinstance(config, dict) or not {"format", "requires", "model", "transforms", "spec"} <= set(config):
        raise ValueError(f"{path / 'config.yaml'}: is not the config of a model directory")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path}: got format {config.get('format')}, this mm reads {FORMAT}; install the mm that wrote it"
        )
    return config


class PlainLoader(yaml.SafeLoader):
    """Plain data without aliases, by which a few lines could stand for any number of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, which no mm writes")
        return super().compose_node(parent, index)


def load(path: str | Path, allow: Sequence[str] = (), device: str | torch.device = "cpu") -> LoadedModel:
    """A model directory (or wandb:entity/project/name:version) -> a model that predicts, in evaluation mode.

    allow: further packages whose classes may be built. Errors: ValueError where the directory is none, or names a class
    of a package that is not allowed, or a function.
    """
    path = fetch(path)
    config = read_config(path)
    torch.empty(0, device=device)  # a device that is not there is no fault of the directory
    try:
        check_config(path, config, allow)
        with nullcontext() if allow else installed_packages_only():
            return rebuild(path, config, allow, device)
    except Exception as error:  # the files say what no mm writes
        raise damaged(path, error) from error


def check_config(path: Path, config: dict[str, Any], allow: Sequence[str]) -> None:
    """Check a model directory without building or importing anything that it names.

    Raises:
        ValueError: If it is not as mm writes it, or names a class of a package that is not allowed.
    """
    check_requirements(path, config["requires"])
    for part in BUILT:
        check_targets(config.get(part), [*allow, "torchmetrics"] if part == "metrics" else allow)
    for part in (*BUILT, "spec"):
        check_sources(path, config.get(part), part)
    check_sections(config)
    check_links(path)


def damaged(path: Path, error: Exception) -> ValueError:
    """The one error of a directory that can't be loaded; its message names the directory."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return ValueError(f"{path}: lacks {error.filename}; copy the whole directory")
    told = " ".join(str(error).split())
    told = told if len(told) <= LONGEST else f"{told[:LONGEST]} ..."
    if not isinstance(error, ValueError):
        return ValueError(f"{path}: is damaged, or no mm has written it: {type(error).__name__}: {told}")
    return ValueError(told if str(path) in told else f"{path}: {told}")


def check_requirements(path: Path, requires: Any) -> None:
    """Check that the packages that a model needs are installed, without importing any.

    Raises:
        ValueError: If one is not, or is none of those that models of mm need.
    """
    known = ("mm", "torch", *OPTIONAL)
    if not isinstance(requires, dict) or not set(requires) <= set(known):
        raise ValueError(f"{path}: requires: got {requires!r:.200}, wanted versions of some of {', '.join(known)}")
    lacking = [name for name in requires if name != "mm" and not installed(name)]
    if lacking:
        raise ValueError(f"{path}: needs {', '.join(lacking)}; pip install {' '.join(lacking)}")


def installed(package: str) -> bool:
    """Whether a package is installed, by its metadata alone."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def check_targets(node: Any, allow: Sequence[str] = ()) -> None:
    """Check that every `_target_` of a config is of a package whose classes may be built, without importing any.

    Raises:
        ValueError: If one is not.
    """
    if isinstance(node, list):
        for child in node:
            check_targets(child, allow)
    elif isinstance(node, dict):
        if "_target_" in node:
            check_name(node["_target_"], allow)
        for child in node.values():
            check_targets(child, allow)


def check_classes(node: Any, allow: Sequence[str] = ()) -> None:
    """As check_targets, and that each is a class: for configs whose objects Hydra builds, which calls functions too."""
    check_targets(node, allow)
    if isinstance(node, dict) and "_target_" in node:
        find_class(node["_target_"], allow)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_classes(child, allow)


def rebuild(path: Path, config: dict[str, Any], allow: Sequence[str], device: str | torch.device) -> LoadedModel:
    """The model of a directory whose config was checked."""
    labels = read_labels(path / "labels.json")
    for name, head in config["model"]["heads"].items():
        if "classes" in head:
            head["classes"] = labels[name]
    for part in (*BUILT, "spec"):
        anchor_tokenizers(path, config.get(part))
    inputs = {name: input_data(name, data, labels) for name, data in config["spec"]["inputs"].items()}
    for name, node in config["transforms"].items():
        if "columns" in node and node["columns"] is None:
            node["columns"] = list(inputs[name].columns or ())
    with Bounded(path):
        model = build(config["model"], allow)
    load_model(model, str(path / "model.safetensors"), device=str(device))
    known: dict[str, Any] = config.get("calibration", {})  # of models that mm calibrate has seen
    model.calibration = {name: Calibration(**tuples(fitted)) for name, fitted in known.items()}
    for name, fitted in [*model.calibration.items()]:
        if fitted.bias and not fitted.exact:  # a temperature alone has no bias
            warnings.warn(
                f"{path}: the calibration of '{name}' is of an older version, which rounded the confidence of long "
                "texts to zero; it is left out: run mm calibrate again",
                stacklevel=2,
            )
            del model.calibration[name]
    transforms = {name: build(node, allow) for name, node in config["transforms"].items()}
    readers = {name: build(node, allow) for name, node in config["readers"].items()}
    spec = DataSpec(
        inputs=inputs,
        targets={n: TargetData(**d, classes=tuple(labels[n])) for n, d in config["spec"]["targets"].items()},
    )
    return LoadedModel(model.to(device).eval(), transforms, readers, spec, config, path)


class Bounded(TorchDispatchMode):
    """Refuse to allocate far more than the weights of a model directory need, before the memory is taken.

    Args:
        path: The directory.

    Raises:
        ValueError: Before an operation that would exceed the bound.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        file = path / "model.safetensors"
        with safe_open(file, "pt") as weights:
            self.tensors = TENSORS[0] * len(weights.keys()) + TENSORS[1]
        self.bytes = ROOM[0] * file.stat().st_size + ROOM[1]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would import its compiler for it, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in FACTORIES and str(kwargs.get("device") or "cpu") != "meta":
            self.count(args[0] if isinstance(args[0], list | tuple) else [], kwargs.get("dtype"))
        elif name in ("clone", "_to_copy", "empty_like"):
            self.count(args[0].shape, args[0].dtype)
        return func(*args, **kwargs)

    def count(self, shape: Sequence[int], dtype: torch.dtype | None) -> None:
        """Take one tensor into account."""
        self.bytes -= prod(shape) * (dtype or torch.get_default_dtype()).itemsize
        self.tensors -= 1
        if self.bytes < 0 or self.tensors < 0:
            size = f"a tensor of {' x '.join(map(str, shape))}" if self.bytes < 0 else "so many layers"
            raise ValueError(f"{self.path}: the config describes {size}, far more than its weights; it is damaged")


def use_tokenizer(folder: str, *nodes: dict[str, Any]) -> None:
    """Every part of a target that is written by tokens has the same."""
    for node in nodes:
        node["tokenizer"] = folder


def weights(path: str | Path) -> dict[str, Tensor]:
    """Of a model directory (or wandb:entity/project/name:version), by name. Errors: ValueError where it is none."""
    path = fetch(path)
    read_config(path)
    return read_tensors(path / "model.safetensors")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a file of safetensors. Raise ValueError where it is none, or damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is damaged: {error}; copy it again") from None


def build(node: Any, allow: Sequence[str] = ()) -> Any:
    """Plain data -> objects: every mapping with a `_target_` becomes an instance of that class."""
    if isinstance(node, list):
        return [build(x, allow) for x in node]
    if not isinstance(node, dict):
        return node
    built = {key: build(value, allow) for key, value in node.items() if key != "_target_"}
    return find_class(node["_target_"], allow)(**built) if "_target_" in node else built


def build_metrics(node: Any, allow: Sequence[str] = ()) -> Any:
    """Build the metrics that a model directory names.

    Args:
        node: Their config: name to config.
        allow: Further packages whose classes may be built; `torchmetrics` allows all of its metrics.

    Returns:
        Metrics by name.

    Raises:
        ValueError: If one is not of an allowed package, or may load a model from somewhere.
    """
    modules = tuple(f"torchmetrics.{name}" for name in METRICS)
    for name, child in children(node):
        found = find_class(child["_target_"], ["torchmetrics", *allow])
        own = found.__module__.startswith("torchmetrics.") and "torchmetrics" not in allow
        if own and not found.__module__.startswith(modules):
            raise ValueError(
                f"the metric '{name}' is {child['_target_']}, which may load another model; if you trust it, set "
                "allow=[torchmetrics]"
            )
    return build(node, ["torchmetrics", *allow])


def check_name(target: Any, allow: Sequence[str] = ()) -> None:
    """Errors: ValueError where a class is not of an allowed package."""
    if not isinstance(target, str) or not DOTTED.fullmatch(target) or not target.startswith(prefixes(allow)):
        package = str(target).split(".")[0]
        raise ValueError(
            f"the model's config names {target!s:.200}, which is outside {', '.join(ALLOWED)}; if you trust it, load "
            f"with mm.load(path, allow=['{package}']), or allow=[{package}] on the command line"
        )


def prefixes(allow: Sequence[str]) -> tuple[str, ...]:
    """How the names of classes that may be built begin."""
    return (*ALLOWED, *(f"{name}." for name in allow))


def find_class(target: str, allow: Sequence[str] = ()) -> type:
    """Errors: ValueError where it is not a class of an allowed package."""
    check_name(target, allow)
    allowed = prefixes(allow)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the model's config names {target}, which can't be imported: {error}") from None
    # What an allowed module has itself imported is not of an allowed package.
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ValueError(f"the model's config names {target}, which is no class of an allowed package")
    return found


def fetch(path: str | Path) -> Path:
    """wandb:entity/project/name:version is downloaded, else the path itself. Errors: ValueError where W&B refuses."""
    if not str(path).startswith("wandb:"):
        return Path(path)
    wandb = require("wandb", "wandb")
    refused = require("wandb.errors", "wandb").Error

    name = str(path).removeprefix("wandb:")
    try:
        artifact = wandb.run.use_artifact(name) if wandb.run else wandb.Api().artifact(name)
        for file, entry in artifact.manifest.entries.items():
            if entry.ref is not None or PurePath(file).is_absolute() or ".." in PurePath(file).parts:
                raise ValueError(f"it has {file!r:.80}, which lies outside of it")
        return Path(artifact.download())
    except (refused, ValueError) as error:
        raise ValueError(f"checkpoint={path}: {error}; wanted wandb:entity/project/name:version") from None


def without_sources(config: dict[str, Any], model: MultimodalModel) -> dict[str, Any]:
    """Return the config of a model, where each part that was built from a source of weights is built without.

    Args:
        config: The finished config of the model, which stays as it is.
        model: What was built from it; those of its modules that inherit `mm.types.Rebuilt` say how, also those that
            are nested in other parts.
    """
    config = json.loads(json.dumps(config))
    for path, module in model.named_modules():
        if isinstance(module, Rebuilt):
            for node in nodes_of(config, type(module), path.split(".")):
                node |= plain(module.architecture)
    return config


def nodes_of(node: Any, kind: type, path: Sequence[str]) -> list[dict[str, Any]]:
    """Find the configs that a module was built from.

    Args:
        node: A config, or a part of it.
        kind: The module's class.
        path: The names of the modules that it lies in, and its own; keys of the config come in the same order, perhaps
            with others in between: the config of `fusion.towers.a` is at `fusion.towers.a.fusion`.
    """
    known = class_of(node) if isinstance(node, dict) and not path else None
    if isinstance(known, type) and issubclass(kind, known):  # sharding makes a subclass
        return [node]
    found: list[dict[str, Any]] = []
    for key, child in children(node):
        found += nodes_of(child, kind, path[1:] if path and str(key) == path[0] else path)
    return found


def class_of(node: Mapping[str, Any]) -> Any:
    """Return the class that a config names, where its module is imported."""
    module, _, name = str(node.get("_target_")).rpartition(".")
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def needed(model: MultimodalModel) -> list[str]:
    """The optional packages that its classes are of, or that their files import."""
    files = [sys.modules[type(module).__module__] for module in model.modules()]
    used = {file.__name__.split(".")[0] for file in files}
    used |= {str(found.__module__).split(".")[0] for file in files for found in vars(file).values() if callable(found)}
    return [name for name in OPTIONAL if name in used]


def plain(node: Any) -> Any:
    """Tuples become lists, paths texts: what yaml can say safely."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(x) for x in node]
    return str(node) if isinstance(node, Path) else node


def input_data(name: str, data: dict[str, Any], labels: Mapping[str, Sequence[str]]) -> InputData:
    """Of an input, as the directory has it."""
    columns = [ColumnData(**c, classes=tuple(labels[f"{name}/{c['name']}"])) for c in data.get("columns") or ()]
    return InputData(**{**tuples(data), "columns": tuple(columns) or None})


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Lists become tuples, as in the frozen types."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
