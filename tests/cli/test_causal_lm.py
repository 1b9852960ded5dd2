"""A picture, a sound and words, and what a language model says of them; also beside an adapter."""

import pytest
from conftest import COLUMNS, TINY

import mm as package

ARGS = [*COLUMNS, *TINY, "model/fusion=transformer", "model/heads=causal_lm", "monitor.metric=val/exact_match"]
ARGS += ["model.heads.target.target_codec.tokenizer=bpe", "model.heads.target.target_codec.vocab_size=300", "run=said"]
LM = "{model_type: llama, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 1, num_attention_heads: 2}"
ARGS += [f"model.heads.target.config={LM}", "model.heads.target.target_codec.max_length=12", "task.optimizer.lr=0.003"]
ARGS += ["model.heads.target.prompt='{input} which colour is it ?'", "datamodule.batch_size=12"]


@pytest.mark.parametrize("projection", ["mlp", "queries"])
def test_learns_answers_and_serves(mm, manifest, projection):
    own = [
        f"datamodule.path={manifest}",
        f"model.heads.target.projection={projection}",
        "trainer.max_epochs=25",
        "trainer.check_val_every_n_epoch=5",
    ]
    run = mm("train", *ARGS, *own)
    assert run.status == 0, run.err
    assert run.metrics["test/exact_match"] > 0.9
    answer = package.load(run.folder / "model").predict({"text": "it is blue"})
    assert answer["target"]["prediction"] in ("red", "green", "blue")
    again = mm("evaluate", f"checkpoint={run.folder}/model", *COLUMNS, f"datamodule.path={manifest}")
    assert again.metrics["test/exact_match"] == run.metrics["test/exact_match"]


def test_adapters_beside_the_language_model(mm, manifest):
    lora = ["peft=lora", "peft.config.target_modules='heads.target.lm.*(q_proj|v_proj)'"]
    run = mm("train", *ARGS, *lora, f"datamodule.path={manifest}", "trainer.max_epochs=2")
    assert run.status == 0, run.err
    assert "weights of heads.target.lm learn" in run.out
    assert package.load(run.folder / "model").predict({"text": "it is blue"})["target"]["prediction"] is not None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model.heads.target.prompt=what"], "prompt: got 'what', wanted one {input} in it"),
        (
            ["model.heads.target.projection=linaer"],
            "projection: got 'linaer' and num_queries=16, wanted one of linear, mlp, queries",
        ),
        (["model.heads.target.config={model_type: lama}"], "transformers has no 'lama'; did you mean 'llama'"),
        (["model.heads.target.num_queries=0"], "got 'mlp' and num_queries=0"),
        (["model.heads.target.target_codec.tokenizer=wordpiece"], "prompt: the tokenizer does not know all of"),
        (["model.heads.target.config=null"], "got neither of `pretrained` and `config` of the language model"),
    ],
)
def test_mistakes(mm, manifest, args, said):
    run = mm("train", *ARGS, *args, f"datamodule.path={manifest}", "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err
