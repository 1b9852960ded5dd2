"""No key is accepted and not read: what each verb reads of its config while it runs."""

import pytest
from conftest import COLUMNS, TINY
from omegaconf import DictConfig, OmegaConf

# Keys that a verb takes over from mm train, so that the same arguments may be typed, and says that it does not read.
SAID = {"find_batch": {"logger"}}
# Read as plain data; without their target they are refused.
ASKED = {"evaluate": {"few_shot", "zero_shot", "linear_probe"}}
# Keys that only Hydra's interpolations read, and the one that composes a config.
COMPOSED = {"paths", "run", "experiment", "debug", "peft"}


@pytest.fixture
def reads(monkeypatch):
    """The top keys of any root config that were read."""
    seen: set[str] = set()

    def watch(name):
        inner = getattr(DictConfig, name)

        def outer(self, key, *args, **kwargs):
            if isinstance(key, str) and self._get_parent() is None:
                seen.add(key)
            return inner(self, key, *args, **kwargs)

        monkeypatch.setattr(DictConfig, name, outer)

    for name in ("__getattr__", "__getitem__", "get"):
        watch(name)
    select = OmegaConf.select

    def selected(cfg, key, *args, **kwargs):
        if cfg._get_parent() is None:
            seen.add(key.split(".")[0])
        return select(cfg, key, *args, **kwargs)

    monkeypatch.setattr(OmegaConf, "select", staticmethod(selected))
    return seen


def top_keys(verb):
    from hydra import compose, initialize_config_module

    with initialize_config_module("mm.conf", version_base="1.3"):
        return {str(key) for key in compose(verb)} - COMPOSED - SAID.get(verb, set()) - ASKED.get(verb, set())


def test_every_verb_reads_every_key(mm, manifest, reads):
    data = [*COLUMNS, f"datamodule.path={manifest}"]
    small = [*data, *TINY, "trainer.max_epochs=1"]
    trained = mm("train", *small, "run=a")
    assert trained.status == 0, trained.err
    assert top_keys("train") <= reads
    model, table = f"checkpoint={trained.folder / 'model'}", f"datamodule.path={manifest}"
    commands = {
        "evaluate": [model, table, "trainer.accelerator=cpu"],
        "predict": [model, table, "trainer.accelerator=cpu"],
        "calibrate": [model, table],
        "embed": [model, table, "run=e"],
        "shard": [*data, "out=shards", "run=s"],
        "find_batch": [*small, "most=2", "run=f"],
        "benchmark": [*small, "steps=10", "warmup=1", "run=b"],
    }
    for verb, args in commands.items():
        reads.clear()
        run = mm(verb, *args)
        assert run.status == 0, (verb, run.err)
        assert top_keys(verb) <= reads, verb


def test_frozen_vectors_refuse_what_they_do_not_read_of_the_trainer(mm, manifest):
    data = [*COLUMNS, f"datamodule.path={manifest}"]
    trained = mm("train", *data, *TINY, "trainer.max_epochs=1", "run=a")
    asked = [f"checkpoint={trained.folder / 'model'}", *data[:1], data[-1], "linear_probe=target"]
    run = mm("evaluate", *asked, "trainer.accelerator=cpu", "trainer.limit_test_batches=2")
    assert run.status == 2
    assert "trainer.limit_test_batches: zero_shot, few_shot and linear_probe read only trainer.accelerator" in run.err
    run = mm("evaluate", *asked, "trainer.accelerator=cpu", "trainer.devices=2")
    assert run.status == 2 and "set trainer.devices=1" in run.err
    run = mm("evaluate", *asked, "trainer.accelerator=gpu", "trainer.devices=7")
    assert run.status == 2 and "trainer:" in run.err
    run = mm("evaluate", *asked, "trainer.accelerator=cpu")
    assert run.status == 0, run.err
    run = mm("evaluate", *asked[:-1], "few_shot.shots=[2]")
    assert run.status == 2 and "few_shot.shots: nothing reads it without few_shot.target" in run.err
    run = mm("embed", *asked[:-1], "device=nothing", "run=e")
    assert run.status == 2 and "device: got 'nothing', wanted auto, cpu" in run.err
