"""`mm train`, as a user types it."""

import json
import shlex

import pytest
import yaml
from conftest import COLUMNS, TINY
from safetensors.torch import load_file

import mm as package

SMALL = [*COLUMNS, *TINY, "trainer.max_epochs=2", "datamodule.batch_size=16"]


def test_leaves_everything_that_it_says(mm, manifest):
    run = mm("train", *SMALL, f"datamodule.path={manifest}", "run=first")
    assert run.status == 0, run.err
    assert str(run.folder) == "outputs/first"
    names = {f.name for f in run.folder.iterdir()}
    assert {"model", "config.yaml", "metrics.json", "predictions.parquet", "test_report.png", "checkpoints"} <= names
    assert {"config.yaml", "model.safetensors", "labels.json", "README.md"} <= {
        f.name for f in (run.folder / "model").iterdir()
    }
    for subset in ("", "[text]", "[vision]", "[audio]", "[text+vision]", "[text+audio]", "[vision+audio]"):
        assert 0 <= run.metrics[f"test{subset}/accuracy"] <= 1
    assert run.metrics["test/rows"] == 12
    assert json.loads((run.folder / "model/labels.json").read_text()) == {"target": ["blue", "green", "red"]}
    finished = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert "???" not in str(finished)
    assert finished["model"]["encoders"]["audio"]["frontend"]["sample_rate"] == 8000  # found in the data

    # the run in a few lines, with the sizes of what was saved, and not the whole config
    weights = load_file(run.folder / "model" / "model.safetensors")
    head = sum(x.numel() for name, x in weights.items() if name.startswith("heads.target."))
    assert f"heads     target ClassificationHead ({head:,}) of 3 classes: blue, green, red" in run.out.splitlines()
    assert f"config    {run.folder}/config.yaml" in run.out.splitlines()
    assert "_target_" not in run.out

    # the same test again, through the model directory alone
    again = mm("evaluate", f"checkpoint={run.folder}/model", "datamodule=manifest", f"datamodule.path={manifest}")
    assert again.status == 0, again.err
    for name, value in run.metrics.items():
        if name.startswith("test"):
            assert again.metrics[name] == pytest.approx(value, abs=1e-5), name

    # a run that is finished says so; one that is asked for more goes on
    said = mm("train", "run=first", "resume=true")
    assert said.status == 0
    assert "finished" in said.out
    more = mm("train", "run=first", "resume=true", "trainer.max_epochs=3")
    assert more.metrics["train/epochs"] == 3
    assert more.metrics["train/steps"] == 3 * 3

    # a mistake while resuming is not remembered, and a run that goes on is not finished
    wrong = mm("train", "run=first", "resume=true", "trainer.max_epochs=4", "task.freeze=[nothing_like_it]")
    assert wrong.status == 2
    assert mm("train", "run=first", "resume=true").status == 0
    other = mm("train", "run=first", "resume=true", "trainer.max_epochs=4", "model.embed_dim=32")
    assert "embed_dim was 16, now it is 32" in other.err
    unclear = mm("train", "run=first", "resume=1")
    assert "resume: got 1, wanted true or false" in unclear.err

    # and a folder that is not empty is refused
    refused = mm("train", *SMALL, f"datamodule.path={manifest}", "run=first")
    assert refused.status == 2
    assert "not empty" in refused.err
    assert "Traceback" not in refused.err


def test_resume_needs_a_run_and_a_checkpoint(mm, tmp_path):
    nothing = mm("train", "run=none", "resume=true")
    assert (nothing.status, nothing.out) == (2, "")
    assert "there is no run in outputs/none" in nothing.err
    (tmp_path / "outputs/bare").mkdir(parents=True)
    (tmp_path / "outputs/bare/overrides.yaml").write_text("[debug=fast, trainer.accelerator=cpu]")
    bare = mm("train", "run=bare", "resume=true")
    assert bare.status == 2
    assert "holds no checkpoint yet" in bare.err


def test_inputs_without_a_column_are_dropped_unless_they_are_named(mm, manifest):
    alone = [a for a in SMALL if "vision" not in a and "audio" not in a]
    run = mm("train", *alone, f"datamodule.path={manifest}", "run=text")
    assert run.status == 0, run.err
    assert list(yaml.safe_load((run.folder / "config.yaml").read_text())["model"]["encoders"]) == ["text"]
    assert not any("[" in name for name in run.metrics)
    named = mm("train", *alone, f"datamodule.path={manifest}", "model/encoders/audio=conformer")
    assert named.status == 2
    assert "model.encoders.audio is set by the override model/encoders/audio=conformer" in named.err


def test_several_targets_have_several_heads(mm, manifest):
    args = [a for a in SMALL if "columns.target" not in a]
    lacking = mm("train", *args, f"datamodule.path={manifest}", "datamodule.columns.targets={tint: colour, big: size}")
    assert lacking.status == 2
    assert "+model/heads@model.heads.tint=" in lacking.err
    run = mm(
        "train",
        *args,
        f"datamodule.path={manifest}",
        "datamodule.columns.targets={tint: colour, big: size}",
        "+model/heads@model.heads.tint=classification",
        "+model/heads@model.heads.big=regression",
        "model.heads.big.weight=0.5",
    )
    assert run.status == 0, run.err
    metrics = run.metrics
    assert 0 <= metrics["test/tint/accuracy"] <= 1
    assert metrics["test/big/mae"] > 0
    assert metrics["test/loss"] == pytest.approx(metrics["test/tint/loss"] + 0.5 * metrics["test/big/loss"], rel=1e-4)
    answer = package.load(run.folder / "model").predict({"text": "it is red"})
    assert set(answer) == {"tint", "big"}
    assert isinstance(answer["big"]["prediction"], float)


def test_two_inputs_of_one_kind_share_an_encoder(mm, manifest):
    args = [
        a for a in SMALL if not any(x in a for x in ("columns.text", "columns.vision", "columns.audio", "encoders"))
    ]
    run = mm(
        "train",
        *args,
        f"datamodule.path={manifest}",
        "datamodule.columns.inputs={premise: {column: words, modality: text}, "
        "hypothesis: {column: size, modality: text}}",
        "+model/encoders/text@model.encoders.premise=hashed_ngrams",
        "model.shared_encoders={hypothesis: premise}",
    )
    assert run.status == 0, run.err
    model = package.load(run.folder / "model").model
    assert list(model.encoders) == ["premise"]
    assert model.inputs == ["premise", "hypothesis"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["task.optimizer=adamv"], "task/optimizer=adamv"),
        (["+foo.bar=1"], "nothing reads it"),
        (["+task.optimizer.lrr=1"], "got an unexpected keyword argument 'lrr'"),
        (["task.optimizer.lr=-1"], "task.optimizer: Invalid learning rate: -1"),
        (["+task.foo=1"], "foo"),
        (["model.embed_dim=-4"], "model"),
        (["monitor.mode=maximum"], "wanted min or max"),
        (["compile=maybe"], "wanted true or false"),
        (["trainr.max_epochs=1"], "trainer.max_epochs"),
        (["model/fusion=gatd"], "gated"),
        (["logger=wanddb"], "wandb"),
        (["datamodule=digit"], "digits"),
        (["+trainer.no_such=1"], "no_such"),
        (["datamodule.on_error=skip"], "raise, drop, missing"),
        (["datamodule.inputs=[smell]"], "text, vision, audio"),
        (["task.freeze=[nothing_like_it]"], "finds no parameter"),
        (["model.encoders.text.num_heads=3"], "model.encoders.text.num_heads: got 3, which does not divide"),
        (["model.encoders.audio.pool=mena"], "model.encoders.audio.pool: got 'mena'"),
        (["datamodule=manifest", "datamodule.colums.text=x"], "did you mean 'datamodule.columns.text'"),
        (["datamodule=manifest"], "datamodule.path"),
        (["trainer.max_epochs=two"], "trainer.max_epochs: got 'two'"),
        (["trainer.max_epochs=0"], "trainer.max_epochs: got 0, wanted 1 or more, or -1"),
        (["trainer.max_epochs=-5"], "trainer.max_epochs: got -5, wanted 1 or more, or -1"),
        (["seed=-1"], "seed: got -1, wanted a whole number from 0"),
        (["task.lr=0.1"], "no key 'task.lr'; did you mean 'task.optimizer.lr'?"),
        (["trainer.max_epoch=3"], "no key 'trainer.max_epoch'; did you mean 'trainer.max_epochs' or"),
        (["model/fusion=gatd"], "mm: model/fusion=gatd: there is no such option, only bottleneck, concat"),
        (["task.layer_decay=-3"], "task.layer_decay: got -3, wanted a factor above 0"),
        (["task.scheduler.warmup=2.5"], "task.scheduler.warmup: got 2.5, wanted whole steps"),
        (["model.heads.target.label_smoothing=3"], "label_smoothing: got 3, wanted a part"),
        (["monitor.metric=val/acuracy"], "did you mean 'val/accuracy'"),
        (["trainer.accelerator=cuda"], "trainer"),
        (["trainer.precision=bf16-true"], "wanted bf16-mixed"),
        (["trainer.precision=16-mixed"], "set task.optimizer.fused=false"),
        (["trainer.max_epochs=-1", "trainer.max_time=00:00:01:00"], "task/scheduler=constant"),
        (["model.shared_encoders={speech: text}"], "the data has no input 'speech'"),
        (["datamodule.inputs=[text]", "datamodule.transforms.vision.fit=crop"], "no input that it would act on"),
        (["task.scheduler=null"], "task.scheduler: got null, which only a task that tests can do without"),
        (["task.nonfinite=null"], "task.nonfinite: got null"),
        (["task.optimizer=null"], "task.optimizer: got null"),
        (["monitor.metric=train/loss"], "wanted one of val/loss"),
        (
            ["+model.heads.target.target_codec.size=3"],
            "model.heads.target.target_codec: ClassTarget() takes no arguments\n",
        ),
    ],
)
def test_a_mistake_is_one_message_and_status_2(mm, tmp_path, args, said):
    run = mm("train", "run=wrong", *args)
    assert run.status == 2
    assert said in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "outputs/wrong").exists()


def test_a_run_goes_on_with_the_command_that_it_printed(mm, manifest, tmp_path):
    """Its folder and its configs lie elsewhere."""
    (tmp_path / "own/trainer").mkdir(parents=True)
    (tmp_path / "own/trainer/short.yaml").write_text("defaults: [default]\nmax_epochs: 1\n")
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", "run=far", "paths.outputs=else where", "trainer=short"]
    run = mm("train", "--config-dir", "own", *args)
    assert run.status == 0, run.err
    command = next(line for line in run.out.splitlines() if "resume=true" in line)
    again = mm(*shlex.split(command)[1:])
    assert again.status == 0, again.err
    assert again.metrics["train/epochs"] == 2


def test_the_data_of_a_run_stays(mm):
    args = ["debug=fast", "trainer.accelerator=cpu", "run=kept", "trainer.max_epochs=1"]
    assert mm("train", *args).status == 0
    other = mm("train", "run=kept", "resume=true", "trainer.max_epochs=2", "datamodule.pixel_noise=0.5")
    assert other.status == 2
    assert "datamodule.pixel_noise was 0.3, now it is 0.5" in other.err


def test_verbs(mm):
    assert "train" in mm().out
    wrong = mm("trian")
    assert wrong.status == 2
    assert "did you mean 'train'" in wrong.err


def test_sweep_jobs_have_folders_of_their_own(mm, manifest):
    run = mm("train", "-m", *SMALL, f"datamodule.path={manifest}", "run=sweep", "seed=0,1", "trainer.max_epochs=1")
    assert run.status == 0, run.err
    assert str(run.folder) == "outputs/sweep/1"
    assert sorted(f.name for f in run.folder.parent.iterdir() if f.is_dir()) == ["0", "1"]
    table = mm("compare", "outputs/sweep", "metrics=test/accuracy")
    assert "±" in table.out
