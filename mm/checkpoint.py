"""The one door to trained models: a plain directory that loads without Lightning or pickles."""

import json
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from mm.files import whole
from mm.messages import near
from mm.model import MultimodalModel
from mm.transforms.collate import Sample, collate, finish, is_absent
from mm.transforms.tabular.row import Row
from mm.transforms.text.tokens import Tokens, load_tokenizer
from mm.types import (
    FORMAT,
    Batch,
    Calibration,
    ColumnData,
    DataSpec,
    Features,
    InputData,
    Judged,
    Read,
    Rebuilt,
    TargetData,
    TargetTransform,
    Transform,
)

ROWS = "rows.safetensors"  # digests of the rows of each split
CALIBRATED = "Calibration: "  # begins a line of the model card
# Whose classes may be built on loading; nothing else of a config is ever called.
ALLOWED = ("mm.", "torch.nn.", "torchvision.transforms.", "torchaudio.transforms.")
OPTIONAL = ("timm", "transformers", "torchaudio", "torchvision")  # packages that only some models need


@dataclass
class LoadedModel:
    """A trained model and all that it needs to read raw inputs."""

    model: MultimodalModel
    transforms: dict[str, Transform]
    readers: dict[str, TargetTransform]
    spec: DataSpec
    config: dict[str, Any]  # plain data, as in the directory's config.yaml, with the label map filled in
    path: Path

    @property
    def rows(self) -> dict[str, Tensor]:
        """Digests of the rows that it was trained, validated and tested on; none where an older mm has written it."""
        return load_file(self.path / ROWS) if (self.path / ROWS).is_file() else {}

    @torch.inference_mode()
    def predict(self, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        """One sample, or a list of them -> target name -> what its head decodes to.

        A sample is input name -> a text, an image (path, PIL image, array), a sound (path, array, (array, rate)) or,
        of a table, column -> cell; any subset of the inputs. A category that the training rows do not have is read as
        "other", with a warning. Errors: ValueError for an unknown name, an unreadable input, or a sample without any.
        """
        if isinstance(samples, Mapping):
            return self.predict([samples])[0]
        if isinstance(samples, str) or not all(isinstance(sample, Mapping) for sample in samples):
            one = f"{{'{next(iter(self.transforms))}': ...}}"
            raise ValueError(f"got {samples!r:.80}, wanted a sample, such as {one}, or a list of them")
        if not len(self.model.heads):
            raise ValueError(f"{self.path}: this model predicts nothing: it has no head")
        if not samples:
            return []
        device = next(self.model.parameters()).device
        batch = finish(to_device(self.read(samples), device), self.transforms)
        output = self.model(batch.inputs, batch.masks)
        answers = self.model.decode(self.model.merge(output, batch))
        return [{name: rows[i] for name, rows in answers.items()} for i in range(len(samples))]

    def read(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        """Raw samples -> a batch without targets."""
        rows = []
        for row, sample in enumerate(samples):
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
                warnings.warn(f"sample {row}: '{name}' names what the training rows do not have", stacklevel=3)
            rows.append(Sample(reads, {}, row))
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
    rows of each split, as in mm/datamodules/fingerprint.py.
    """
    with whole(path) as part:
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
        save_model(model, str(part / "model.safetensors"))
        if rows:
            save_file(dict(rows), part / ROWS)
        for file in part.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes them for their owner alone


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
        config = yaml.safe_load((part / "config.yaml").read_text(encoding="utf-8"))
        write_config(part, config | {"calibration": {name: asdict(fitted) for name, fitted in calibration.items()}})
        card = (part / "README.md").read_text(encoding="utf-8").splitlines()
        kept = "\n".join(line for line in card if not line.startswith(CALIBRATED)).rstrip()
        (part / "README.md").write_text(f"{kept}\n\n{CALIBRATED}{told}\n", encoding="utf-8")


def write_config(path: Path, config: dict[str, Any]) -> None:
    """The config.yaml of a model directory."""
    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    (path / "config.yaml").write_text(text, encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Of a model directory. Errors: ValueError where it is none, or of another format."""
    if (path / "model" / "config.yaml").is_file():
        raise ValueError(f"{path} is a run folder; its model directory is {path / 'model'}")
    for name in ("config.yaml", "model.safetensors"):
        if not (path / name).is_file():
            raise ValueError(f"no model directory at {path}: it has no {name}; a run leaves one as outputs/RUN/model")
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path}: got format {config.get('format')}, this mm reads {FORMAT}; install the mm that wrote it"
        )
    return config


def load(path: str | Path, allow: Sequence[str] = (), device: str | torch.device = "cpu") -> LoadedModel:
    """A model directory (or wandb:entity/project/name:version) -> a model that predicts, in evaluation mode.

    allow: further packages whose classes may be built. Errors: ValueError where the directory is none, or names a class
    of a package that is not allowed, or a function.
    """
    path = fetch(path)
    config = read_config(path)
    lacking = [name for name in config["requires"] if find_spec(name) is None]
    if lacking:
        raise ValueError(f"{path}: needs {', '.join(lacking)}; pip install {' '.join(lacking)}")
    for name, node in config["model"]["encoders"].items():
        if node.get("pretrained"):
            raise ValueError(
                f"{path}: its encoder '{name}' names other weights, {node['pretrained']}; its own are here"
            )
    labels = json.loads((path / "labels.json").read_text(encoding="utf-8"))
    for name, head in config["model"]["heads"].items():
        if "classes" in head:
            head["classes"] = labels[name]
    for name, transform in config["transforms"].items():
        if (path / "tokenizer" / name).is_dir():
            transform["tokenizer"] = str(path / "tokenizer" / name)
    for name, target in config["spec"]["targets"].items():
        if (path / "labels" / name).is_dir():
            own = config["model"]["heads"][name], config["readers"][name], target["facts"]
            use_tokenizer(str(path / "labels" / name), *own)
    inputs = {name: input_data(name, data, labels) for name, data in config["spec"]["inputs"].items()}
    for name, node in config["transforms"].items():
        if "columns" in node and node["columns"] is None:
            node["columns"] = list(inputs[name].columns or ())
    model = build(config["model"], allow)
    load_model(model, str(path / "model.safetensors"), device=str(device))
    known: dict[str, Any] = config.get("calibration", {})  # of models that mm calibrate has seen
    model.calibration = {name: Calibration(**tuples(fitted)) for name, fitted in known.items()}
    for name, fitted in [*model.calibration.items()]:
        if isinstance(model.heads[name], Judged) and not fitted.exact:
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


def use_tokenizer(folder: str, *nodes: dict[str, Any]) -> None:
    """Every part of a target that is written by tokens has the same."""
    for node in nodes:
        node["tokenizer"] = folder


def weights(path: str | Path) -> dict[str, Tensor]:
    """Of a model directory (or wandb:entity/project/name:version), by name. Errors: ValueError where it is none."""
    path = fetch(path)
    read_config(path)
    return load_file(path / "model.safetensors")


def build(node: Any, allow: Sequence[str] = ()) -> Any:
    """Plain data -> objects: every mapping with a `_target_` becomes an instance of that class."""
    if isinstance(node, list):
        return [build(x, allow) for x in node]
    if not isinstance(node, dict):
        return node
    built = {key: build(value, allow) for key, value in node.items() if key != "_target_"}
    return find_class(node["_target_"], allow)(**built) if "_target_" in node else built


def find_class(target: str, allow: Sequence[str] = ()) -> type:
    """Errors: ValueError where it is not a class of an allowed package."""
    allowed = (*ALLOWED, *(f"{name}." for name in allow))
    if not isinstance(target, str) or not target.startswith(allowed):
        package = str(target).split(".")[0]
        raise ValueError(
            f"the model's config names {target}, which is outside {', '.join(ALLOWED)}; if you trust it, load with "
            f"mm.load(path, allow=['{package}']), or allow=[{package}] on the command line"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the model's config names {target}, which can't be imported: {error}") from None
    if not isinstance(found, type) or found.__module__.split(".")[0] not in {a.split(".")[0] for a in allowed}:
        raise ValueError(f"the model's config names {target}, which is no class of an allowed package")
    return found


def fetch(path: str | Path) -> Path:
    """wandb:entity/project/name:version is downloaded, else the path itself. Errors: ValueError where W&B refuses."""
    if not str(path).startswith("wandb:"):
        return Path(path)
    import wandb
    from wandb.errors import Error

    name = str(path).removeprefix("wandb:")
    try:
        artifact = wandb.run.use_artifact(name) if wandb.run else wandb.Api().artifact(name)
        return Path(artifact.download())
    except (Error, ValueError) as error:
        raise ValueError(f"checkpoint={path}: {error}; wanted wandb:entity/project/name:version") from None


def without_sources(config: dict[str, Any], model: MultimodalModel) -> dict[str, Any]:
    """The config of the parts, where each that was built from a source of weights is told how to be built without."""
    config = json.loads(json.dumps(config))
    parts = [(config["encoders"], model.encoders), (config["heads"], model.heads), (config, {"fusion": model.fusion})]
    for nodes, modules in parts:
        for name, module in dict(modules.items()).items():
            if isinstance(module, Rebuilt):
                nodes[name] |= plain(module.architecture)
    return config


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
