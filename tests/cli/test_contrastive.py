"""`mm train task=contrastive` and `mm evaluate` of what it leaves, as a user types them."""

import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import COLUMNS, TINY

import mm as package
from mm.types import Features

ALIGNED = ["task=contrastive", *COLUMNS, *TINY, "trainer.max_epochs=2", "datamodule.batch_size=16"]


@pytest.fixture(scope="module")
def trained(mm_once, tmp_path_factory, manifest):
    """A run folder."""
    folder = tmp_path_factory.mktemp("aligned")
    args = [*ALIGNED, "task.zero_shot.target=target", "prompts@task.zero_shot=photo", "task.label=target"]
    args += [f"datamodule.path={manifest}", f"paths.outputs={folder}", "run=r"]
    mm_once(folder, "train", *args)
    return folder / "r"


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_leaves_a_model_without_heads_and_what_it_measured(trained):
    found = metrics(trained)
    for pair in ("text->vision", "text->audio", "vision->text", "vision->audio", "audio->text", "audio->vision"):
        assert 0 <= found[f"test[{pair}]/recall@1"] <= found[f"test[{pair}]/recall@5"] <= 1
        assert found[f"test[{pair}]/chance@5"] == pytest.approx(5 / 12)
        assert 1 <= found[f"test[{pair}]/median_rank"] <= 12
    assert found["test/loss"] > 0
    for place in ("test[text]", "test[vision]", "test[audio]", "test[vision+audio]"):
        assert 0 <= found[f"{place}/zero_shot_accuracy"] <= 1
    assert found["test/zero_shot_chance"] == pytest.approx(1 / 3)
    finished = yaml.safe_load((trained / "config.yaml").read_text())
    assert finished["model"]["heads"] == {}
    assert finished["model"]["fusion"]["_target_"] == "mm.fusion.sum.SumFusion"
    kept = yaml.safe_load((trained / "model/config.yaml").read_text())
    assert 10 < kept["task"]["scale"] < 20
    assert "Vectors of text, vision, audio" in (trained / "model/README.md").read_text()


def test_evaluate_measures_the_same_and_what_is_asked_for(mm, trained, manifest):
    args = ["evaluate", f"checkpoint={trained}/model", "datamodule=manifest", f"datamodule.path={manifest}"]
    plain = mm(*args)
    assert plain.status == 0, plain.err
    before = metrics(trained)
    wanted = {n: x for n, x in before.items() if n.startswith("test[") and "zero_shot" not in n}
    assert {n: plain.metrics[n] for n in wanted} == pytest.approx(wanted, abs=1e-5)
    assert not any("zero_shot" in name or "probe" in name for name in plain.metrics)

    # the file's own splits serve the probe
    given = [*args, "datamodule.columns.split=split", "zero_shot.target=target", "prompts=photo", "linear_probe=target"]
    asked = mm(*given)
    assert asked.status == 0, asked.err
    shots = {n: x for n, x in before.items() if "zero_shot" in n}
    assert len(shots) == 5
    assert {n: asked.metrics[n] for n in shots} == pytest.approx(shots, abs=1e-5)
    probes = {n: x for n, x in asked.metrics.items() if n.endswith("linear_probe_accuracy")}
    assert list(probes) == [f"test{p}/linear_probe_accuracy" for p in ("[text]", "[vision]", "[audio]", "")]
    assert probes["test[vision]/linear_probe_accuracy"] > 0.6  # a colour, of three

    product = mm(*given[:-1], "zero_shot.combine=product", "zero_shot.templates=['it is {}']")
    assert product.status == 0, product.err
    assert "test[vision+audio]/zero_shot_accuracy" in product.metrics


def test_zero_shot_is_the_closest_prompt(mm, trained, manifest):
    args = ["evaluate", f"checkpoint={trained}/model", "datamodule=manifest", f"datamodule.path={manifest}"]
    run = mm(*args, "zero_shot.target=target", "zero_shot.templates=['it is {}','{}!']")
    loaded = package.load(trained / "model")

    def embed(name, raw):
        batch = loaded.read([{name: x} for x in raw])
        inputs = {
            n: loaded.transforms[n].finish(x) if not isinstance(x, Features) else x for n, x in batch.inputs.items()
        }
        with torch.no_grad():
            return F.normalize(loaded.model.encode(inputs, batch.masks)[name].pooled, dim=-1)

    colours = loaded.spec.targets["target"].classes
    classes = F.normalize(torch.stack([embed("text", [f"it is {c}", f"{c}!"]).mean(0) for c in colours]), dim=-1)
    folder = manifest.parent
    lines = [line.split(",") for line in manifest.read_text().splitlines()[1:]]
    lines = [line for line in lines if line[-1] == "test"] if "split" in manifest.read_text().splitlines()[0] else lines
    images = embed("vision", [folder / line[2] for line in lines])
    guess = (images @ classes.T).argmax(1)
    truth = [colours.index(line[4]) for line in lines]
    wanted = sum(int(g) == t for g, t in zip(guess, truth)) / len(truth)
    assert run.metrics["test[vision]/zero_shot_accuracy"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["zero_shot.target=size"], "no column for the target 'size'"),
        (["zero_shot.target=target", "zero_shot.templates=[colour]"], "wanted one {} where the class stands"),
        (["zero_shot.target=target", "prompts=digits"], "no class '0' in 'target'"),
        (["zero_shot.target=target", "zero_shot.combine=sum"], "mean, product"),
        (["robustness=default"], "predicts nothing"),
        (
            ["task.modality_subsets.test=single"],
            "task.modality_subsets.test: nothing reads it of a model that was trained to align",
        ),
    ],
)
def test_mistakes_of_evaluate(mm, trained, manifest, args, said):
    run = mm("evaluate", f"checkpoint={trained}/model", "datamodule=manifest", f"datamodule.path={manifest}", *args)
    assert run.status == 2, run.out
    assert said in run.err
    assert "Traceback" not in run.err


def test_it_predicts_nothing(mm, trained, manifest):
    run = mm("predict", f"checkpoint={trained}/model", "datamodule=manifest", f"datamodule.path={manifest}")
    assert (run.status, "predicts nothing" in run.err) == (2, True)
    with pytest.raises(ValueError, match="predicts nothing"):
        package.load(trained / "model").predict({"text": "it is red"})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model/fusion=gated"], "nothing would train GatedFusion"),
        (["datamodule.inputs=[text]"], "there is only text"),
        (["+model/heads@model.heads.target=classification"], "Contrastive reads no head"),
        (["task.label=colour"], "task.label: got 'colour'"),
        (["task.chunk_size=0"], "task.chunk_size"),
        (["task.loss.same_label_pairs=drop"], "exclude, positive"),
        (["task/loss=siglp"], "siglip"),
        (["task.zero_shot.target=target", "task.zero_shot.templates=[]"], "zero_shot.templates"),
        (["task.zero_shot.target=colour"], "zero_shot.target"),
        (["monitor.metric=val/recal@1"], "did you mean 'val/recall@1'"),
        (["trainer=fsdp", "trainer.devices=1"], "use trainer=ddp"),
    ],
)
def test_mistakes_of_train(mm, manifest, args, said):
    given = [a for a in ALIGNED if "inputs" not in args[0] or not any(name in a for name in ("vision", "audio"))]
    run = mm("train", *given, f"datamodule.path={manifest}", "run=wrong", "debug=fast", *args)
    assert run.status == 2, run.out
    assert said in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize("loss", ["siglip", "symile"])
def test_every_loss_trains_in_chunks_without_targets_and_resumes(mm, manifest, loss):
    args = [a for a in ALIGNED if "target" not in a]
    more = [f"task/loss={loss}", "task.chunk_size=5", "monitor.metric=val/recall@5", "trainer.max_epochs=1"]
    run = mm("train", *args, *more, f"datamodule.path={manifest}", "run=first")
    assert run.status == 0, run.err
    assert run.metrics["train/epochs"] == 1
    again = mm("train", "run=first", "resume=true", "trainer.max_epochs=2")
    assert again.status == 0, again.err
    assert again.metrics["train/epochs"] == 2


def test_a_loss_of_all_inputs_at_once_says_how_prompts_go_with_it(mm, manifest):
    args = [*ALIGNED, f"datamodule.path={manifest}", "task/loss=symile", "trainer.max_epochs=1", "task.label=target"]
    args += ["task.zero_shot.target=target", "prompts@task.zero_shot=photo"]
    with pytest.warns(UserWarning, match="zero_shot.combine=mip is what goes with it"):
        mm("train", *args, "run=mean")
    joint = mm("train", *args, "task.zero_shot.combine=mip", "run=joint")
    assert joint.status == 0, joint.err
    assert 0 <= joint.metrics["test[vision+audio]/zero_shot_accuracy"] <= 1


@pytest.mark.slow
def test_two_processes_measure_what_one_does(mm_process, manifest, tmp_path):
    exact = ["model.encoders.text.dropout=0", "task/optimizer=sgd", "task.zero_shot.target=target"]
    exact += [f"model.encoders.audio.frontend.{axis}_masks=0" for axis in ("time", "freq")]
    args = [*ALIGNED, *exact, f"datamodule.path={manifest}"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "task.chunk_size=4"]
    found = {}
    for name, more in {"one": ["datamodule.batch_size=14"], "two": [*two, "datamodule.batch_size=7"]}.items():
        run = mm_process("train", *args, *more, f"run={name}")
        assert run.returncode == 0, run.stderr
        found[name] = {n: x for n, x in metrics(tmp_path / f"outputs/{name}").items() if n.startswith(("test", "val"))}
    assert len(found["one"]) > 50
    assert found["two"] == pytest.approx(found["one"], abs=1e-5, rel=1e-5)
