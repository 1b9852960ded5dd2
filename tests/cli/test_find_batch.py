"""`mm find_batch` finds a planted limit, of the longest rows, and says what to type."""

import resource

import pytest
import torch
from conftest import COLUMNS, TINY

from mm.cli.find_batch import (
    Bucket,
    allowed,
    cgroup_memory,
    largest,
    memory,
    memory_limit,
    out_of_memory,
    overrides,
    tiled,
)
from mm.model import MultimodalModel
from mm.types import Batch

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
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}", "run=found", "trainer.accumulate_grad_batches=4")
    assert run.status == 0, run.err
    assert run.metrics == {"find_batch/batch_size": 21}
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
    budget = ["datamodule.budget={text: 30}", "datamodule.buckets=2"]
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}", *budget)
    assert run.status == 0, run.err
    lines = [line for line in run.out.splitlines() if "trains" in line]
    assert [line.split("text up to ")[1] for line in lines] == ["12: a batch of 8 trains", "14: a batch of 7 trains"]
    assert "datamodule.batch_size=8 'datamodule.budget={text: 96}'" in run.out  # 8 * 12: the smaller


def test_what_waits_for_a_validation_is_left_out(mm, manifest):
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}", "most=2", "callbacks=[default,early_stopping]")
    assert run.status == 0, run.err


def test_more_rows_than_there_are_help_nobody(mm, manifest, monkeypatch):
    seen = plant(monkeypatch, lambda rows, text, audio: True)
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}")
    assert run.metrics == {"find_batch/batch_size": 36}  # training rows
    assert max(seen)[0] == 36
    assert "more were not tried" in run.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["most=0"], "most: got 0"),
        (["reserve=1"], "reserve: got 1"),
        (["max_gib=-1"], "max_gib: got -1"),
        (["trainer=ddp", "trainer.devices=2"], "got 2 processes, wanted one"),
    ],
)
def test_mistakes(mm, manifest, args, said):
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}", *args)
    assert (run.status, said in run.err) == (2, True), run.err
    assert "Traceback" not in run.err


def test_a_model_too_large_is_said_and_other_errors_are_not_hidden(mm, manifest, monkeypatch):
    plant(monkeypatch, lambda rows, text, audio: False)
    run = mm("find_batch", *SMALL, f"datamodule.path={manifest}")
    assert (run.status, "not even one row trains" in run.err) == (2, True)

    def broken(*args):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(MultimodalModel, "forward", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        mm("find_batch", *SMALL, f"datamodule.path={manifest}")


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 100])
def test_largest_is_exact_up_to_sixty_three(most):
    for limit in range(64):
        tried = []

        def trains(rows, limit=limit, tried=tried):
            tried.append(rows)
            return rows <= limit

        assert largest(trains, most) == min(limit, most)
        assert max(tried) <= most
        assert len(tried) == len(set(tried)) <= 14
    assert 960 <= largest(lambda rows: rows <= 1000, 5000) <= 1000


def test_rows_of_several_windows_are_tiled_whole():
    row = torch.tensor([5, 5, 5, 8])  # row 5 has three windows
    batch = Batch({"text": torch.arange(8).view(4, 2)}, {"text": torch.ones(4, 2).bool()}, {}, row, {})
    large = tiled(Bucket(rows=9, longest={}, batch=batch, windows=3), 2)
    assert large.inputs["text"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1], [2, 3]]
    assert large.masks["text"].shape == (6, 2)


def test_overrides_hold_for_every_bucket():
    found = [
        (Bucket(9, {"text": 10.0, "audio": 2.0}, None, 1), 50),
        (Bucket(9, {"text": 40.0, "audio": 0.0}, None, 1), 11),
    ]
    rows, budget = overrides(found)
    assert (rows, budget) == (50, {"text": 440.0, "audio": 100.0})
    for bucket, fits in found:  # what Batching makes of it
        assert min([rows, *(budget[n] // long for n, long in bucket.longest.items() if long)]) <= fits


def test_memory_is_limited_and_given_back():
    cpu = torch.device("cpu")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert allowed(cpu, 3, 0.5) == 3 * 2**30
    assert 0.4 < allowed(cpu, None, 0.6) / allowed(cpu, None, 0.2) < 0.6
    for _ in range(3):  # what one trial took is there for the next
        with memory_limit(cpu, memory("/proc/self/status", "VmRSS") + 2**28):
            torch.ones(2**25)  # 2**27 bytes
            with pytest.raises(RuntimeError) as refused:
                torch.ones(2**27)
    assert out_of_memory(refused.value)
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    torch.ones(2**27)


def write_group(folder, limit: str, names: tuple[str, str, str]) -> None:
    """A control group that uses 300 bytes, of which 100 are page cache."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("limit", "usage"), (limit, "300")):
        (folder / names[("limit", "usage").index(name)]).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(f"anon 200\n{names[2]} 100\n")


def test_the_limits_of_control_groups_are_kept(tmp_path):
    proc, mount = tmp_path / "cgroup", tmp_path / "mount"
    assert cgroup_memory(proc, mount) == []  # a system without them
    two = ("memory.max", "memory.current", "inactive_file")
    proc.write_text("0::/pod/box\n")
    write_group(mount, "max", two)
    write_group(mount / "pod", "1000", two)
    write_group(mount / "pod/box", "2000", two)
    assert sorted(cgroup_memory(proc, mount)) == [1000 - 200, 2000 - 200]
    one = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    proc.write_text("9:name=systemd:/\n5:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n")
    write_group(mount / "memory", "400", one)  # in a container its own group is mounted at the top
    assert cgroup_memory(proc, mount) == [400 - 200]
    write_group(mount / "memory", str(2**63 - 4096), one)
    assert cgroup_memory(proc, mount) == []


def test_what_is_allowed_is_no_more_than_the_control_group_has(monkeypatch):
    own = memory("/proc/self/status", "VmRSS")
    monkeypatch.setattr("mm.cli.find_batch.cgroup_memory", lambda: [10**6])
    assert allowed(torch.device("cpu"), None, 0.0) == pytest.approx(own + 10**6, rel=0.05)
