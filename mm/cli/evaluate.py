"""Measure a model directory on data, for every subset of its inputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.checkpoint import LoadedModel


def main(argv: list[str]) -> None:
    launch("evaluate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from omegaconf import OmegaConf

    from mm import checkpoint
    from mm.cli import _apply, _finish, _frozen, _robustness

    asked: Any = OmegaConf.to_container(cfg)
    for named in _finish.named_keys():
        room = named.key.split(".")[0]
        if room in ("few_shot", "zero_shot") and asked[room]["target"] is None:
            raise ValueError(f"{named.key}: nothing reads it without {room}.target=TARGET, whose classes are measured")
    loaded = _apply.load(cfg)
    if "retrieval" in loaded.config["task"]:
        return aligned(cfg, asked, loaded, folder)
    if _frozen.wanted(asked):
        return frozen(cfg, asked, loaded, folder)
    if not len(loaded.model.heads):
        raise ValueError(
            f"{loaded.path}: nothing of this model can be measured by itself: it was trained on inputs without labels; "
            "train it further, with model.init_from, or name a target with few_shot.target or linear_probe"
        )
    datamodule = _apply.datamodule(cfg, loaded, labelled=True)
    _apply.warn_of_trained_rows(loaded, datamodule, cfg.split)
    kept = loaded.config["metrics"]
    metrics = {head: checkpoint.build_metrics(node, list(cfg.allow)) for head, node in kept.items()}
    study = None if cfg.get("robustness") is None else _robustness.plan(cfg, loaded, datamodule, metrics)
    task, trainer = _apply.test(cfg, loaded, datamodule, cfg.split, metrics=metrics)
    if study is not None:
        _robustness.run(study, trainer, task, folder)
    _apply.conclude(trainer, task, datamodule, datamodule.rows(cfg.split).tolist(), folder, truth=True)


def aligned(cfg: "DictConfig", asked: Any, loaded: "LoadedModel", folder: Path) -> None:
    """A model of aligned inputs: retrieval, and, of targets that are named, what its vectors are good for."""
    from omegaconf import open_dict

    from mm import checkpoint
    from mm.cli import _alignment, _apply, _frozen
    from mm.cli._escape import escape
    from mm.tasks.contrastive import Ranks

    if cfg.get("robustness") is not None:
        raise ValueError("robustness: this model predicts nothing: it was trained to align its inputs; leave it out")
    refuse_subsets("that was trained to align its inputs")
    kept = loaded.config["task"]
    retrieval = checkpoint.build(kept["retrieval"], cfg.allow)
    about = {key: kept[key] for key in ("label", "group")} if isinstance(retrieval, Ranks) else {}
    only = list(dict.fromkeys([*_frozen.wanted(asked), *filter(None, about.values())]))
    datamodule = _apply.datamodule(cfg, loaded, labelled=True, only=only)
    _apply.warn_of_trained_rows(loaded, datamodule, cfg.split)
    _frozen.check(asked, datamodule, loaded.model)
    with open_dict(cfg):
        cfg.task = {"_target_": "mm.tasks.contrastive.Contrastive", **escape(about)}
    task, trainer = _apply.test(cfg, loaded, datamodule, cfg.split, retrieval=retrieval)
    results, test, train = task.results, _frozen.of_aligned(task.embedded, task.compared), None
    results |= _alignment.told(task, datamodule, asked["zero_shot"], loaded.config["task"]["scale"])
    if _frozen.trained_on(asked):
        _apply.again(trainer, task, datamodule, "train")
        train = _frozen.of_aligned(task.embedded, task.compared)
    task.results = results | _frozen.measure(asked, train, test, datamodule, cfg.seed)
    _apply.conclude(trainer, task, datamodule, datamodule.rows(cfg.split).tolist(), folder, truth=True)


def frozen(cfg: "DictConfig", asked: Any, loaded: "LoadedModel", folder: Path) -> None:
    """Any other model: what its encoders give is good for, of targets that are named; its heads are left alone."""
    from mm.cli import _apply, _finish, _frozen, _results, _run, _trainer
    from mm.cli._app import save_overrides
    from mm.messages import is_first_process
    from mm.runs.results import write_metrics

    if cfg.get("robustness") is not None:
        raise ValueError("robustness measures heads; zero_shot, few_shot and linear_probe leave them out: ask in turn")
    refuse_subsets("that zero_shot, few_shot or linear_probe measure")
    if not is_first_process():
        return
    trainer = _trainer.build(cfg, [], False)
    _frozen.check_trainer(trainer, [named.key for named in _finish.named_keys()])
    learnt = _frozen.trained_on(asked)
    datamodule = _apply.datamodule(cfg, loaded, labelled=True, only=_frozen.wanted(asked), anew=learnt)
    _apply.warn_of_trained_rows(loaded, datamodule, cfg.split)
    _frozen.check(asked, datamodule, loaded.model)
    test = _frozen.of_encoders(loaded, datamodule, cfg.split, trainer)
    train = _frozen.of_encoders(loaded, datamodule, "train", trainer) if learnt else None
    results: dict[str, float] = {}
    if asked["zero_shot"]["target"] is not None:
        results |= _frozen.zero_shot(loaded, test, datamodule, asked["zero_shot"])
    results |= _frozen.measure(asked, train, test, datamodule, cfg.seed)
    results |= _run.data_counts(datamodule) | {"data/rows": len(datamodule.rows(cfg.split))}
    save_overrides(folder)
    saved = {"metrics": write_metrics(folder, results, {})}
    if datamodule.faults:
        saved["errors"] = folder / "errors.csv"
        datamodule.write_errors(saved["errors"])
    _results.print_results(results, [""], folder, saved, [])


def refuse_subsets(why: str) -> None:
    """Refuse a key that only models with heads read.

    Args:
        why: What kind of model it is, for the message.

    Raises:
        ValueError: If task.test_subsets is set.
    """
    from mm.cli import _finish

    for named in _finish.named_keys():
        if named.key.startswith("task."):
            raise ValueError(f"{named.key}: nothing reads it of a model {why}; leave it out")
