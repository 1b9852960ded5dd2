"""`mm scale_batch` finds a planted limit, of the longest rows, and says what to type."""

import pytest
import torch
from conftest import COLUMNS, TINY

from mm.model import MultimodalModel

SMALL = [*COLUMNS, *TINY]


def plant(monkeypatch: pytest.MonkeyPatch, allows) -> list[tuple[int, ...]]:
    """A model that has no memory for batches that `allows` refuses. -> (rows, bytes, samples) of each batch seen"""
    seen = []
    forward = MultimodalModel.forward

    def limited(self, inputs, masks, targets=None):
        seen.append((len(inputs["text"]), inputs["text"].shape[1], inputs["audio"].shape[1]))
        if not allows(*seen[-1]):
            raise torch.OutOfMemoryError("planted")
        return forward(self, inputs, masks, targets)

    monkeypatch.setattr(MultimodalModel, "forward", limited)
    return seen


def test_finds_a_planted_limit(mm, manifest, monkeypatch):
    seen = plant(monkeypatch, lambda rows, text, audio: rows <= 21)
    run = mm("scale_batch", *SMALL, f"datamodule.path={manifest}", "run=found", "trainer.accumulate_grad_batches=4")
    assert run.status == 0, run.err
    assert run.metrics == {"scale_batch/batch_size": 21}
    assert "type: datamodule.batch_size=21\n" in run.out
    assert {(text, audio) for _, text, audio in seen} == {(14, 1600)}  # the longest of each: it is green!!!
    assert seen.count((21, 14, 1600)) == 2  # two steps
    assert {f.name for f in run.folder.iterdir()} == {
        "config.yaml",
        "metrics.directions.json",
        "metrics.json",
        "overrides.yaml",
    }


def test_every_bucket_has_its_own(mm, manifest, monkeypatch):
    plant(monkeypatch, lambda rows, text, audio: rows * text <= 100)
    budget = ["datamodule.max_batch_length={text: 30}", "datamodule.num_buckets=2"]
    run = mm("scale_batch", *SMALL, f"datamodule.path={manifest}", *budget)
    assert run.status == 0, run.err
    lines = [line for line in run.out.splitlines() if "trains" in line]
    assert [line.split("text up to ")[1] for line in lines] == ["12: a batch of 8 trains", "14: a batch of 7 trains"]
    assert "datamodule.batch_size=8 'datamodule.max_batch_length={text: 96}'" in run.out  # 8 * 12: the smaller


def test_what_waits_for_a_validation_is_left_out(mm, manifest):
    run = mm(
        "scale_batch", *SMALL, f"datamodule.path={manifest}", "max_batch_size=2", "callbacks=[default,early_stopping]"
    )
    assert run.status == 0, run.err


def test_more_rows_than_there_are_help_nobody(mm, manifest, monkeypatch):
    seen = plant(monkeypatch, lambda rows, text, audio: True)
    run = mm("scale_batch", *SMALL, f"datamodule.path={manifest}")
    assert run.metrics == {"scale_batch/batch_size": 36}  # training rows
    assert max(seen)[0] == 36
    assert "more were not tried" in run.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["max_batch_size=0"], "max_batch_size: got 0"),
        (["memory_headroom=1"], "memory_headroom: got 1"),
        (["memory_limit_gib=-1"], "memory_limit_gib: got -1"),
        (["trainer=ddp", "trainer.devices=2"], "got 2 processes, wanted one"),
    ],
)
def test_mistakes(mm, manifest, args, said):
    run = mm("scale_batch", *SMALL, f"datamodule.path={manifest}", *args)
    assert (run.status, said in run.err) == (2, True), run.err
    assert "Traceback" not in run.err


def test_a_model_too_large_is_said_and_other_errors_are_not_hidden(mm, manifest, monkeypatch):
    plant(monkeypatch, lambda rows, text, audio: False)
    run = mm("scale_batch", *SMALL, f"datamodule.path={manifest}")
    assert (run.status, "not even one row trains" in run.err) == (2, True)

    def broken(*args):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(MultimodalModel, "forward", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        mm("scale_batch", *SMALL, f"datamodule.path={manifest}")
