"""The search for the largest batch, and the memory that it may use."""

import resource
from contextlib import suppress

import pytest
import torch

from mm.profiling.batch_size import BatchSizeReport, Bucket, largest, repeat_to
from mm.profiling.memory import available_memory, cgroup_memory, is_out_of_memory, memory_limit, proc_bytes
from mm.types import Batch

BATCH = Batch({}, {}, {}, torch.arange(1), {})


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
    large = repeat_to(Bucket(rows=9, longest={}, batch=batch, windows=3), 2)
    assert large.inputs["text"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1], [2, 3]]
    assert large.masks["text"].shape == (6, 2)


def test_a_report_holds_for_every_bucket(tmp_path):
    buckets = [
        Bucket(9, {"text": 10.0, "audio": 2.0}, BATCH, 1),
        Bucket(9, {"text": 40.0, "audio": 0.0}, BATCH, 1),
    ]
    report = BatchSizeReport(buckets, [50, 11])
    assert (report.batch_size, report.budget) == (50, {"text": 440.0, "audio": 100.0})
    for bucket, fits in zip(buckets, report.sizes):  # what Batching makes of it
        longest = bucket.longest.items()
        assert min([report.batch_size, *(report.budget[n] // long for n, long in longest if long)]) <= fits
    budget = {"scale_batch/budget/text": 440.0, "scale_batch/budget/audio": 100.0}
    assert report.metrics == {"scale_batch/batch_size": 50, **budget}
    assert report.table().to_dicts()[1] == {"rows": 9, "text up to": 40.0, "audio up to": 0.0, "batch size": 11}
    assert (report.save(tmp_path) / "metrics.json").is_file()


def test_memory_is_limited_and_given_back():
    cpu = torch.device("cpu")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert available_memory(cpu, 3, 0.5) == 3 * 2**30
    assert 0.4 < available_memory(cpu, None, 0.6) / available_memory(cpu, None, 0.2) < 0.6
    for _ in range(3):  # what one trial took is there for the next
        with memory_limit(cpu, proc_bytes("/proc/self/status", "VmRSS") + 2**28):
            torch.ones(2**25)  # 2**27 bytes
            with pytest.raises(RuntimeError) as refused:
                torch.ones(2**27)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    torch.ones(2**27)


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory")])
def test_the_memory_fraction_of_a_cuda_device_is_restored(monkeypatch, error):
    fractions = [0.75]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 100))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: fractions[-1])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: fractions.append(part))
    with suppress(RuntimeError), memory_limit(torch.device("cuda"), 25):
        assert fractions == [0.75, 0.25]
        if error is not None:
            raise error
    assert fractions == [0.75, 0.25, 0.75]


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
    own = proc_bytes("/proc/self/status", "VmRSS")
    monkeypatch.setattr("mm.profiling.memory.cgroup_memory", lambda: [10**6])
    assert available_memory(torch.device("cpu"), None, 0.0) == pytest.approx(own + 10**6, rel=0.05)
