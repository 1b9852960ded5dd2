"""Hydra's launchers of many jobs, as a plugin that Hydra finds: what a job is, and what a sweep gives back."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from mm.cli._app import register_launchers
from mm.launch.job import Job
from mm.launch.slurm import SlurmRequest

register_launchers()
launchers = import_module("hydra_plugins.mm")


def request(**changed) -> SlurmRequest:
    return SlurmRequest(**changed)


def test_hydra_finds_them_by_itself():
    code = (
        "import sys; from mm.cli import _app; sys.path.append(_app.PLUGINS)\n"
        "from hydra.core.plugins import Plugins; from hydra.plugins.launcher import Launcher\n"
        "print(sorted(f'{c.__module__}.{c.__name__}' for c in Plugins.instance().discover(Launcher)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'hydra_plugins.mm.LocalPool', 'hydra_plugins.mm.Slurm'" in ran.stdout
    assert ran.stderr == ""


def test_a_program_that_has_looked_before_knows_them_as_well():
    register_launchers()
    found = Plugins.instance().discover(Launcher)
    assert found.count(launchers.LocalPool) == found.count(launchers.Slurm) == 1


def test_the_trainer_learns_nodes_and_devices_from_slurm():
    four = request(nodes=4, gpus_per_node=8)
    default, every = ({"trainer": {"num_nodes": 1, "devices": devices}} for devices in (1, -1))
    added = ["trainer.num_nodes=4", "trainer.devices=8"]
    assert launchers.trainer_overrides(four, OmegaConf.create(default), []) == added
    assert launchers.trainer_overrides(four, OmegaConf.create(every), ["trainer=ddp"]) == added
    same = {"trainer": {"num_nodes": 4, "devices": 8}}
    assert launchers.trainer_overrides(four, OmegaConf.create(same), ["trainer.devices=8"]) == []
    for devices, typed in ((4, []), (1, ["trainer.devices=1"])):
        with pytest.raises(ValueError, match=rf"trainer.devices is {devices}, but hydra.launcher.tasks_per_node is 8"):
            launchers.trainer_overrides(
                four, OmegaConf.create({"trainer": {"num_nodes": 4, "devices": devices}}), typed
            )


def test_results_of_a_sweep_are_the_monitored_metric_or_the_error(tmp_path, capsys):
    jobs, errors = [], ["", "failed with status 1; the end of 1.log:\nbroken", ""]
    for number in range(3):
        folder = tmp_path / f"s/{number}"
        folder.mkdir(parents=True)
        (folder / "overrides.yaml").write_text(f"# mm train\n[seed={number}, run=s/{number}]")
        jobs.append(Job(["train", f"seed={number}"], folder, f"seed={number}", number))
    (tmp_path / "s/0/metrics.json").write_text(json.dumps({"val/loss": 0.5, "test/accuracy": 0.75}))
    config = {"monitor": {"metric": "val/loss"}, "datamodule": {"_target_": "a.B"}}
    (tmp_path / "s/0/config.yaml").write_text(yaml.safe_dump(config))
    returned = launchers.summarize(jobs, [[f"seed={i}"] for i in range(3)], errors)
    assert returned[0].return_value == 0.5
    assert returned[2].return_value is None
    with pytest.raises(ValueError, match=r"1 of 3 jobs failed: .*s/1"):
        _ = returned[1].return_value
    shown = capsys.readouterr()
    assert "broken" in shown.err
    assert "not finished: 1, 2" in shown.out  # below the table
    assert shown.out.splitlines()[-1] == str(tmp_path / "s")


def test_a_job_has_its_own_overrides_and_its_folder(tmp_path):
    config = OmegaConf.create(
        {
            "hydra": {
                "job": {"num": 0, "id": ""},
                "sweep": {"dir": "${paths.outputs}/s", "subdir": "${hydra.job.num}"},
                "overrides": {"hydra": ["hydra/launcher=local_pool", "hydra.verbose=true", "hydra.sweep.dir=x"]},
            },
            "paths": {"outputs": str(tmp_path / "it's")},
            "trainer": {"devices": 2, "accelerator": "cpu"},
        }
    )
    overrides = ["seed=1", "task.lr=2", "run=s", "resume=true"]
    job = launchers.make_job(["train", "--config-dir=c"], config, overrides, 3, {"seed=1"})
    assert job.folder == Path(tmp_path / "it's/s/3")
    places = ["run='s/3'", rf"hydra.run.dir='{tmp_path}/it\'s/s/3'"]
    assert job.command == ["train", "--config-dir=c", "hydra.verbose=true", "seed=1", "task.lr=2", *places]
    assert (job.label, job.number, job.devices, job.on_cpu) == ("task.lr=2", 3, 2, True)
    config.trainer.devices = "0,1"
    with pytest.raises(ValueError, match="give their number"):
        launchers.make_job(["train"], config, overrides, 3, set())


def test_messages_name_the_key():
    with pytest.raises(ValueError, match=r"^hydra.launcher.gpus: got 4"), launchers.named("hydra.launcher."):
        raise ValueError("gpus: got 4")
    with pytest.raises(ValueError, match=r"^a job wants"), launchers.named("hydra.launcher."):
        raise ValueError("a job wants 2 devices")
