"""Relations between marked words, from a table to what a person reads."""

import csv
import shutil

import pytest

import mm as package

BERT = "{model_type: bert, vocab_size: 14, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
BERT += ", intermediate_size: 32, max_position_embeddings: 32, hidden_dropout_prob: 0.0}"
ANIMALS = ("cat", "dog", "bird")


@pytest.fixture
def rows(tmp_path):
    """Who does it stands first, unless it is told backwards."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["text", "relation", "split"])
        for i in range(90):
            one, other = ANIMALS[i % 3], ANIMALS[(i + 1 + i // 3 % 2) % 3]
            verb, kind = (("bites", "Bite"), ("sees", "See"))[i % 2]
            first, second = ("e1", "e2") if i // 2 % 2 else ("e2", "e1")
            text = f"the <{first}>{one}</{first}> {verb} the <{second}>{other}</{second}>"
            write.writerow([text, f"{kind}({first},{second})", ("train", "train", "val", "test")[i // 4 % 4]])
    return path


def test_learns_tells_and_serves(mm, rows, tokenizer, tmp_path):
    args = [
        "datamodule=text", f"datamodule.path={rows}", "datamodule.columns.text=text",
        "datamodule.columns.target=relation", "datamodule.num_workers=0", "datamodule.batch_size=8",
        "model/heads=relation", "model/encoders/text=huggingface", f"model.encoders.text.config={BERT}",
        f"model.encoders.text.tokenizer={tokenizer}", "model.encoders.text.pool=markers",
        "model.encoders.text.marker_tokens=['<e1>','</e1>','<e2>','</e2>']", "model.embed_dim=16",
        "monitor.metric=val/f1",
        "task.optimizer.lr=0.01", "trainer.max_epochs=8", "trainer.accelerator=cpu",
    ]  # fmt: skip
    frozen = mm("train", *args, "peft=lora")
    assert frozen.status == 2
    assert "the markers of encoders.text are new, and would never be learnt" in frozen.err
    run = mm("train", *args, "run=relation")
    assert run.status == 0, run.err
    learnt = mm(
        "train", *args, "peft=lora", "peft.modules_to_save=[word_embeddings]", "trainer.max_epochs=1", "run=lora"
    )
    assert learnt.status == 0, learnt.err
    assert run.metrics["test/f1"] == run.metrics["test/f1/Bite"] == 1
    assert (run.folder / "test_relations.png").exists()
    shutil.rmtree(tokenizer)
    moved = tmp_path / "moved"
    shutil.move(run.folder / "model", moved)
    (answer,) = package.load(moved).predict([{"text": "the <e2>bird</e2> sees the <e1>cat</e1>"}])
    assert answer["target"]["relation"] == "See"
    assert (answer["target"]["from"], answer["target"]["to"]) == ("e2", "e1")
    with pytest.raises(ValueError, match="the text has no </e2>"):
        package.load(moved).predict([{"text": "the <e2>bird sees the <e1>cat</e1>"}])
