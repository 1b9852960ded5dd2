"""Every yaml binds to its target's signature; every key is consumed; every experiment runs a batch."""

import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf

from mm.assembly.registry import open_registry
from mm.cli._app import register_launchers

register_launchers()

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
ROOTS = [f.stem for f in CONF.glob("*.yaml")]
# Arguments that the code passes, or takes out of a yaml before it is built.
PASSED = {
    "callbacks",
    "logger",
    "model",
    "optimizer",
    "scheduler",
    "metrics",
    "target_codec",
    "encoders",
    "fusion",
    "heads",
    "transforms",
}
PASSED |= {"params", "readers", "known", "whole", "init_from"}
# Those whose further keywords go on to another function.
OTHERS = {"WandbRunLogger": "wandb.init", "Slurm": "mm.launch.slurm.SlurmRequest"}


def targets(node: Any) -> list[dict]:
    """Every mapping with a `_target_`, at any depth."""
    if isinstance(node, list):
        return [found for x in node for found in targets(x)]
    if not isinstance(node, dict):
        return []
    return ([node] if "_target_" in node else []) + [found for x in node.values() for found in targets(x)]


def load(file: Path) -> dict:
    """A yaml with what it takes from others of its folder."""
    data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for entry in data.get("defaults", []) if isinstance(data, dict) else []:
        if isinstance(entry, str) and entry != "_self_":
            data = load(file.with_name(f"{entry}.yaml")) | data
    return data


def find(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


BOUND = [(file, node) for file in FILES for node in targets(load(file))]


def parameters(called: type) -> tuple[set[str], set[str]]:
    """Names that a class takes, through its parents where it hands keywords on; those without a default."""
    names: set[str] = set()
    required: set[str] = set()
    for cls in [c for c in called.__mro__ if "__init__" in vars(c)]:
        found = list(inspect.signature(cls.__init__).parameters.values())[1:]
        names |= {p.name for p in found}
        if cls is called:
            required = {
                p.name for p in found if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            }
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    if called.__name__ in OTHERS:
        names |= set(inspect.signature(find(OTHERS[called.__name__])).parameters)
    return names, required


@pytest.mark.parametrize(
    ("file", "node"), BOUND, ids=lambda x: str(x.relative_to(CONF)) if isinstance(x, Path) else x["_target_"]
)
def test_binds_to_its_target(file, node):
    if "TensorBoard" in node["_target_"]:
        pytest.importorskip("tensorboard", reason="needs the extra mm[tensorboard]")
    names, required = parameters(find(node["_target_"]))
    own = set(node) - {"_target_", "_partial_", "defaults"} - PASSED
    assert own <= names, f"nothing would read {own - names}"
    # what other yamls of its defaults list bring is checked where it stands
    brought = {key.rpartition("@")[2] for entry in node.get("defaults", []) if isinstance(entry, dict) for key in entry}
    assert required <= own | brought | PASSED | {"args", "kwargs"}, f"lacks {required - own - brought}"


def test_every_root_has_its_verb():
    verbs = {
        f.stem
        for f in [*(CONF.parent / "mm/cli").glob("*.py"), *(CONF.parent / "mm/evaluation").glob("*.py")]
        if not f.name.startswith("_")
    }
    assert set(ROOTS) <= verbs


@pytest.mark.parametrize("root", ROOTS)
def test_every_top_key_is_read(root):
    """A key that no code and no interpolation reads would be a promise that nothing keeps."""
    data = yaml.safe_load((CONF / f"{root}.yaml").read_text())
    code = "\n".join(
        file.read_text()
        for room in ("cli", "evaluation", "assembly")
        for file in (CONF.parent / f"mm/{room}").glob("*.py")
    )
    yamls = "\n".join(f.read_text() for f in FILES)
    for key in set(data) - {"defaults"}:
        assert f"cfg.{key}" in code or f'"{key}"' in code or f"${{{key}" in yamls, f"{root}.yaml: {key}"


EXPERIMENTS = sorted(f.stem for f in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_opens_with_its_command_and_composes(name):
    head = (CONF / f"experiment/{name}.yaml").read_text().splitlines()
    assert head[0] == "# @package _global_"
    assert head[1].startswith(f"# mm train experiment={name}")
    with open_registry():
        OmegaConf.to_container(compose("train", [f"experiment={name}"]))


@pytest.mark.slow  # real data, and MiniLM where it reads texts: ten seconds each
@pytest.mark.filterwarnings("ignore:average precision. .* labels have no positive row:UserWarning")  # of few rows
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_a_batch(mm, name, bert):
    if "MM_DATA" not in os.environ:
        pytest.skip("needs MM_DATA, the folder with the data sets")
    given = [f"model.encoders.text.pretrained={bert}"] if name.startswith("bert_") else []
    run = mm("train", f"experiment={name}", *given, "debug=fast", "trainer.accelerator=cpu")
    assert run.status == 0, run.err


@pytest.mark.parametrize(
    "group", sorted({f.parent for f in FILES if f.parent != CONF}), ids=lambda f: str(f.relative_to(CONF))
)
def test_every_option_composes(group):
    if group.name in ("experiment", "hydra"):
        return
    key = str(group.relative_to(CONF))
    root = "evaluate" if key in ("robustness", "prompts") else "train"
    beside = {"task/loss": ["task=contrastive"], "task/objectives": ["task=pretraining"]}.get(key, [])
    for file in group.glob("*.yaml"):
        choice = f"{key}=[{file.stem}]" if key == "callbacks" else f"{key}={file.stem}"
        choice = choice.replace("task/objectives=", "+task/objectives@task.objectives.one=")
        with open_registry():
            cfg = compose(root, [*beside, choice, "paths.run=x"])
            assert cfg is not None
