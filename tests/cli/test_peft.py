"""Fine-tuning in part: what is left behind is a plain model, and a small adapter beside it."""

import itertools

import pytest
import torch
from conftest import write_manifest
from safetensors.torch import load_file

import mm as package

BERT = "{model_type: bert, vocab_size: 260, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2"
BERT += ", intermediate_size: 64, max_position_embeddings: 64, hidden_dropout_prob: 0.0}"
ARGS = [
    "datamodule=text",
    "datamodule.columns.text=words",
    "datamodule.columns.target=colour",
    "datamodule.num_workers=0",
]
ARGS += ["model/encoders/text=huggingface", f"model.encoders.text.config={BERT}", "trainer.accelerator=cpu"]
ARGS += ["datamodule.batch_size=8", "task.optimizer.lr=0.01", "trainer.max_epochs=4", "datamodule.columns.split=split"]


@pytest.fixture
def rows(tmp_path):
    return f"datamodule.path={write_manifest(tmp_path)}"


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_plain_model_and_a_small_adapter(mm, rows, kind):
    run = mm("train", *ARGS, rows, f"peft={kind}", "run=a")
    assert run.status == 0, run.err
    assert "weights of encoders.text learn" in run.out
    loaded = package.load(run.folder / "model")
    assert not any("lora" in n or "ia3" in n or "base_layer" in n for n, _ in loaded.model.named_parameters())
    again = mm("evaluate", "checkpoint=outputs/a/model", "datamodule=text", rows, "datamodule.columns.split=split")
    assert again.status == 0, again.err
    assert again.metrics["test/loss"] == pytest.approx(run.metrics["test/loss"], abs=1e-5)
    looked = mm("diagnose", "run=a", "rows=8")
    assert looked.status == 0, looked.err
    assert "none of these rows has two inputs" in looked.out
    sizes = [
        sum(x.numel() for x in load_file(run.folder / f).values())
        for f in ("adapter/adapter.safetensors", "model/model.safetensors")
    ]
    assert sizes[0] < 0.7 * sizes[1]
    more = mm(
        "train",
        *ARGS,
        rows,
        f"peft={kind}",
        "run=b",
        "peft.adapter_path=outputs/a/adapter",
        "trainer.max_epochs=1",
        "task.optimizer.lr=1e-9",
    )
    assert more.status == 0, more.err
    assert more.metrics["test/loss"] == pytest.approx(run.metrics["test/loss"], abs=1e-4)
    other = mm("train", *ARGS, rows, f"peft={kind}", "run=c", "peft.adapter_path=outputs/a/adapter", "seed=1")
    assert other.status == 2
    assert "was trained beside other weights" in other.err


def test_it_goes_on_where_it_was(mm, rows):
    whole = mm("train", *ARGS, rows, "peft=lora", "run=whole")
    assert whole.status == 0, whole.err
    first = mm("train", *ARGS, rows, "peft=lora", "run=parts", "trainer.max_epochs=2", "task/scheduler=constant")
    assert first.status == 0, first.err
    changed = mm(
        "train", *ARGS, rows, "peft=lora", "run=parts", "resume=true", "peft.config.r=4", "task/scheduler=constant"
    )
    assert changed.status == 2
    assert "peft.config.r was 8, now it is 4" in changed.err
    second = mm("train", *ARGS, rows, "peft=lora", "run=parts", "resume=true", "task/scheduler=constant")
    assert second.status == 0, second.err
    assert second.metrics["train/epochs"] == 4


def test_biases_or_nothing_of_the_encoders(mm, rows):
    """Both begin with the same weights, which one epoch of each changes, or leaves."""
    weights = {}
    for kind in ("bitfit", "linear_probe", "all"):
        part = [] if kind == "all" else [f"peft={kind}"]
        run = mm("train", *ARGS, rows, *part, f"run={kind}", "trainer.max_epochs=1")
        assert run.status == 0, run.err
        weights[kind] = load_file(run.folder / "model/model.safetensors")
        assert not (run.folder / "adapter").exists()
    begun = weights["linear_probe"]
    for name, value in weights["bitfit"].items():
        if name.startswith("encoders."):
            assert torch.equal(value, begun[name]) != name.endswith("bias"), name
    assert not torch.equal(weights["all"]["projections.text.weight"], begun["projections.text.weight"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["peft=lora", "peft.config.target_modules=.*qeury"], "is no module's whole name"),
        (["peft=lora", "peft.config.rank=4"], "rank"),
        (["peft=lroa"], "did you mean 'lora'"),
    ],
)
def test_mistakes(mm, rows, args, said):
    run = mm("train", *ARGS, rows, *args)
    assert run.status == 2
    assert said in run.err
    assert "Traceback" not in run.err


def test_an_encoder_without_attention(mm, rows):
    bag = [word for word in ARGS if "encoders" not in word]
    run = mm("train", *bag, rows, "model/encoders/text=hashed_ngrams", "peft=lora")
    assert run.status == 2
    assert "is no module's whole name; linear layers are called" in run.err


def test_encoders_learn_block_after_block_and_go_on_so(mm, rows):
    args = [*ARGS, rows, "peft=gradual_unfreeze", "task/scheduler=constant", "task.scheduler.warmup=0"]
    begun = mm("train", *ARGS, rows, "peft=linear_probe", "run=begun", "trainer.max_epochs=1")
    assert begun.status == 0, begun.err
    weights = [load_file(begun.folder / "model/model.safetensors")]
    for epochs in (1, 2, 3, 4):  # the same run, told to go on
        run = mm("train", *args, "run=parts", f"trainer.max_epochs={epochs}", f"resume={epochs > 1}")
        assert run.status == 0, run.err
        weights.append(last(run.folder))
    blocks = ("encoder.layer.1.", "encoder.layer.0.", "embeddings.")
    for epoch, (before, after) in enumerate(itertools.pairwise(weights)):
        for place, block in enumerate(blocks):
            names = [n for n in before if n.startswith("encoders.text.model.") and block in n and n.endswith("weight")]
            assert names
            for name in names:
                assert torch.equal(before[name], after[name]) == (epoch <= place), (epoch, name)
    whole = mm("train", *args, "run=whole", "trainer.max_epochs=4")
    assert "epoch 3: 3 of 3 blocks of the encoders learn" in whole.out
    assert all(torch.equal(x, last(whole.folder)[name]) for name, x in weights[-1].items())


def last(folder):
    """Weights of a run's newest checkpoint, by their names in the model."""
    newest = max(folder.glob("checkpoints/last-*.ckpt"))
    state = torch.load(newest, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): x for name, x in state.items() if name.startswith("model.")}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_processes_open_the_same_blocks(mm_process, rows, tmp_path, trainer):
    args = ["train", *ARGS, rows, "peft=gradual_unfreeze", "task.optimizer.lr=1e-3"]
    args[args.index("datamodule.batch_size=8")] = "datamodule.batch_size=12"
    args = [arg.replace("prob: 0.0}", "prob: 0.0, attention_probs_dropout_prob: 0.0}") for arg in args]
    one = mm_process(*args, "run=one")
    assert one.returncode == 0, one.stderr
    two = mm_process(*args, "run=two", f"trainer={trainer}", "trainer.devices=2", "datamodule.batch_size=6")
    assert two.returncode == 0, two.stderr
    assert "epoch 3: 3 of 3 blocks of the encoders learn" in two.stdout
    weights = [load_file(tmp_path / f"outputs/{run}/model/model.safetensors") for run in ("one", "two")]
    assert max(float((x - weights[1][name]).abs().max()) for name, x in weights[0].items()) < 1e-4
