"""What the verbs that apply a model share: a model directory over the rows of a datamodule."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict

from mm import checkpoint
from mm.applying import count_faults, trained_rows
from mm.assembly import finish
from mm.assembly.construct import build, escape
from mm.callbacks.progress import Progress
from mm.checkpoint import TrainedModel
from mm.cli import _named_keys, _results, _run, _trainer
from mm.cli._app import save_overrides
from mm.messages import plain, say
from mm.quiet import silence_lightning
from mm.runs.results import save_results
from mm.types import TargetData


def load(cfg: DictConfig) -> TrainedModel:
    """The model directory. Errors: ValueError where a key is set that the directory decides."""
    silence_lightning()
    _run.seed_everything(cfg.seed)
    for named in _named_keys.named_keys():
        if named.key.startswith("datamodule.transforms"):
            raise ValueError(f"{named.by}: a trained model brings its own transforms, from its directory; leave it out")
    return checkpoint.load(cfg.checkpoint, list(cfg.allow))


def datamodule(
    cfg: DictConfig,
    loaded: TrainedModel,
    labelled: bool,
    only: Sequence[str] | None = None,
    drawn: bool = False,
    anew: bool = False,
) -> Any:
    """The data, read with the model's column map where none is given, its label map and its transforms.

    only: the targets to read, also those that the model does not know; None: those that it does; drawn: whether
    validation and test rows are drawn, as they were for training, where the data names none; anew: classes are those of
    the training rows, as if no head had learnt any.
    """
    known = loaded.spec.targets if labelled and not anew else {}
    targets: dict[str, TargetData | None] = dict(known) if only is None else {name: known.get(name) for name in only}
    saved = loaded.columns
    if saved is not None and "columns" in cfg.datamodule:
        with open_dict(cfg):
            given = OmegaConf.to_container(cfg.datamodule.columns)
            cfg.datamodule.columns = columns(escape(saved), given, labelled, drawn)
    if drawn:
        set_now = {named.key for named in _named_keys.named_keys()}
        for key, value in loaded.split.items():
            if key != "rows" and not {"datamodule.split", f"datamodule.split.{key}"} & set_now:
                cfg.datamodule.split[key] = escape(value)
    built = finish.build_data(
        cfg, codecs=False, readers={} if anew else loaded.target_codecs, known=targets, trained=True, whole=not drawn
    )
    table = built.table
    for name in [n for n in table.targets if n not in targets]:
        del table.targets[name]
    lacking = [name for name in targets if name not in table.targets]
    if lacking:
        raise ValueError(
            f"{table.source}: no column for the target '{lacking[0]}'; set datamodule.columns, or use mm predict"
        )
    if not set(loaded.transforms) & set(table.spec.inputs):
        raise ValueError(
            f"{table.source}: has {', '.join(table.spec.inputs)}, but the model reads {', '.join(loaded.transforms)}"
        )
    for name, data in table.spec.inputs.items():
        if name in loaded.transforms and data.modality != loaded.spec.inputs[name].modality:
            raise ValueError(
                f"{table.source}: the input '{name}' is {data.modality}, but the model reads "
                f"{loaded.spec.inputs[name].modality} there; leave it out with datamodule.inputs"
            )
    for name in loaded.transforms:
        if name not in table.spec.inputs:
            print(plain(f"{table.source}: has no input '{name}': it is absent in every row"))
    built.use(loaded.transforms)
    return built


def warn_of_trained_rows(loaded: TrainedModel, datamodule: Any, split: str) -> None:
    """Print how many of the measured rows the model was trained on, where it was on any."""
    count, first = trained_rows(loaded, datamodule, split)
    if count:
        say(
            f"{datamodule.table.source}: {count} of the {len(datamodule.rows(split))} measured rows were trained on, "
            f"the first: {first}; their figures say nothing of new data"
        )


def columns(saved: dict[str, Any], given: Any, labelled: bool, drawn: bool = False) -> dict[str, Any]:
    """The trained model's columns, under those that are given; of another file its split and group say nothing.

    drawn: this is the file that the model was trained on, or one like it.
    """
    targets = ("target", "targets")
    other = () if drawn else ("split", "group")
    kept = {k: v for k, v in saved.items() if k not in other and (labelled or k not in targets)}
    set_now = {k: v for k, v in given.items() if v is not None}
    if not labelled:
        for name in targets:
            if name in set_now:
                raise ValueError(
                    f"datamodule.columns.{name}: mm predict reads no targets; leave it out, or use mm evaluate"
                )
        set_now |= dict.fromkeys(targets)
    return dict.fromkeys(given) | kept | set_now


def test(cfg: DictConfig, loaded: TrainedModel, datamodule: Any, split: str, **more: Any) -> tuple[Any, Trainer]:
    """Every row of a split through the model."""
    task = build(cfg, "task", _partial_=True)(model=loaded.model, **more)
    trainer = _trainer.build(cfg, [Progress()], False)
    again(trainer, task, datamodule, split)
    return task, trainer


def again(trainer: Trainer, task: Any, datamodule: Any, split: str) -> None:
    """Every row of another split through the same task."""
    datamodule.test_dataloader = lambda: datamodule.loader(split)
    trainer.test(task, datamodule=datamodule, verbose=False)


def conclude(trainer: Trainer, task: Any, datamodule: Any, rows: list[int], folder: Path, truth: bool) -> None:
    """Metrics, pictures, predictions, errors; the last line is the run folder."""
    _run.gather(trainer, task, datamodule)
    if not trainer.is_global_zero:
        return
    save_overrides(folder)
    known = {*task.decoded, *(row for row, _ in datamodule.faults)}
    for row in rows if len(task.model.heads) else ():
        if row not in known:
            datamodule.faults[row, "inputs"] = "the row has no input that the model reads"
    results: Mapping[str, float] = task.results | count_faults(datamodule) | {"data/rows": len(rows)}
    every = truth and bool((datamodule.table.split == "test").all())
    hint = "; the data names no split: all are measured, also those that a model may have been trained on"
    print(
        f"{plain(datamodule.table.source)}: {len(rows)} rows, {results['data/faulty_rows']} of them with an error"
        f"{hint if every else ''}"
    )
    saved = save_results(folder, results, task, datamodule, rows, truth)
    _results.print_results(results, list(task.model.heads) or [""], folder, saved, [])
