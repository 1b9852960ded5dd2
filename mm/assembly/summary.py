"""Description of a run in a few lines, which are printed before its first step."""

from omegaconf import DictConfig
from torch import nn

from mm.assembly.run import TrainingRun
from mm.files import shown

CLASSES = 6  # class names that a line states at most


def describe_run(run: TrainingRun) -> list[str]:
    """Return a line for each part of a run, its length and its trainer. All other settings are in its config.yaml."""
    cfg, model = run.cfg, run.task.model
    shared = [f"{name} as {owner}" for name, owner in model.shared_encoders.items()]
    encoders = [*describe_parts(model.get_submodule("encoders")), *shared]
    described = zip(model.heads, describe_parts(model.get_submodule("heads")))
    heads = [f"{line}{class_names(run, name)}" for name, line in described]
    trainer = cfg.trainer
    lengths = [
        f"{trainer[key]} {name}"
        for key, name in (("max_epochs", "epochs"), ("max_steps", "steps"))
        if trainer[key] not in (None, -1)
    ]
    batch = f"batch size {cfg.datamodule.get('batch_size')} per process"
    lines = {
        "encoders": ", ".join(encoders),
        "fusion": type(model.fusion).__name__ + describe_size(model.get_submodule("fusion")),
        "heads": ", ".join(heads),
        "model": f"{count_parameters(model):,} parameters, {count_parameters(model, trained=True):,} of them trained",
        "task": f"{type(run.task).__name__}, {class_of(cfg.task.optimizer)} lr={cfg.task.optimizer.get('lr')}, "
        f"{class_of(cfg.task.scheduler)}",
        "length": f"{' or '.join(lengths) or 'until it is stopped'}, {batch}",
        "trainer": f"{trainer.accelerator}, devices={trainer.devices}, precision={trainer.precision}, seed={cfg.seed}",
        "monitor": f"{cfg.monitor.metric} ({cfg.monitor.mode})",
        "config": shown(run.folder / "config.yaml"),
    }
    return [f"{name:9} {text}" for name, text in lines.items() if text]


def describe_parts(parts: nn.Module) -> list[str]:
    """Return the name, the class and the number of parameters of each child of a module."""
    return [f"{name} {type(part).__name__}{describe_size(part)}" for name, part in parts.named_children()]


def describe_size(part: nn.Module) -> str:
    """Return the number of parameters of a module, in parentheses; "" if it has none."""
    count = count_parameters(part)
    return f" ({count:,})" if count else ""


def count_parameters(part: nn.Module, trained: bool = False) -> int:
    """Count the parameters of a module, or only those that are trained."""
    return sum(p.numel() for p in part.parameters() if p.requires_grad or not trained)


def class_of(node: DictConfig) -> str:
    """Return the name of the class that a config node builds."""
    return str(node.get("_target_", "")).rpartition(".")[2]


def class_names(run: TrainingRun, head: str) -> str:
    """Return the number and the first names of the classes of a head's target; "" if it has no classes."""
    target = run.data.spec.targets.get(head)
    if target is None or not target.classes:
        return ""
    names = ", ".join(target.classes[:CLASSES])
    return f" of {len(target.classes)} classes: {names}{', ...' if len(target.classes) > CLASSES else ''}"
