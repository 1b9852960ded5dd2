import os
import subprocess
import sys
import time

import pytest

from mm.files import discard, put, unused, whole


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_whole(tmp_path, before):
    path = tmp_path / "a.json"
    if before:
        path.write_text(before)
    (tmp_path / "a.json.part").write_text("the user's own")
    (tmp_path / "a.json.old").write_text("the user's own")
    with whole(path) as part:
        part.write_text("new")
        assert (path.read_text() if before else path.exists()) == (before or False)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json", "a.json.old", "a.json.part"]


@pytest.mark.parametrize("before", [False, True])
def test_a_folder_appears_whole(tmp_path, before):
    path = tmp_path / "model"
    for left in [path] * before + [tmp_path / "model.old"]:  # the last is the user's own
        left.mkdir()
        (left / "old").touch()
    with whole(path) as part:
        part.mkdir()
        (part / "new").touch()
        assert not before or names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model", "model.old"]


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        if folder:
            part.mkdir()
            (part / "half").touch()
        else:
            part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with whole(path) as first:
        first.write_text("first")
        with whole(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.json"]


def test_what_killed_processes_have_left_is_removed(tmp_path):
    code = "import os, sys; from pathlib import Path; from mm.files import whole\n"
    code += "with whole(Path(sys.argv[1])) as part: part.write_text('half'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert len(names(tmp_path)) == 1
    with whole(tmp_path / "a") as at_work:
        at_work.write_text("whole")
        with whole(tmp_path / "a") as part:
            part.write_text("other")
        assert at_work.exists()
    assert names(tmp_path) == ["a"]


def test_a_file_may_be_read_as_any_other(tmp_path):
    with whole(tmp_path / "a") as part:
        part.write_text("x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_long_name_has_room_for_its_temporary_one(tmp_path):
    with whole(tmp_path / ("a" * 250)) as part:
        part.write_text("x")
    assert names(tmp_path) == ["a" * 250]


def test_what_a_link_leads_to_is_replaced(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "old").touch()
    (tmp_path / "link").symlink_to(real)
    with whole(tmp_path / "link") as part:
        part.mkdir()
        (part / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(real) == ["new"]
    assert names(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("fails", [1, 2])  # of the two renames
def test_a_rename_that_fails_loses_neither_folder(tmp_path, monkeypatch, fails):
    part, path = tmp_path / "a.part", tmp_path / "a"
    for folder in (part, path):
        folder.mkdir()
        (folder / folder.name).touch()
    calls, rename = [], os.replace

    def broken(*args):
        calls.append(args)
        if len(calls) == fails:
            raise OSError("no")
        rename(*args)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no"):
        put(part, path)
    assert names(tmp_path) == ["a", "a.part"]
    assert names(path) == ["a"] and names(part) == ["a.part"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "precious").touch()
    with pytest.raises(IsADirectoryError), whole(tmp_path / "a") as part:
        part.touch()
    assert names(tmp_path / "a") == ["precious"]


def test_what_is_not_there_is_discarded_already(tmp_path):
    discard(tmp_path / "none")


def test_what_an_earlier_process_with_this_id_has_left_is_removed(tmp_path):
    left = unused(tmp_path / "a")
    left.touch()  # as process 1 of a container leaves it for process 1 of the next
    with whole(tmp_path / "a") as part:
        part.touch()
        with whole(tmp_path / "a") as other:  # what is at work stays
            other.touch()
        assert part.exists() and not left.exists()
    assert names(tmp_path) == ["a"]


def test_what_another_machine_has_left_is_removed_after_a_week(tmp_path):
    for days in (6, 8):
        left = tmp_path / f"a.other-1-0000000{days}.part"
        left.touch()
        os.utime(left, (time.time() - days * 24 * 3600,) * 2)
    with whole(tmp_path / "a") as part:
        part.touch()
    assert names(tmp_path) == ["a", "a.other-1-00000006.part"]


def test_a_long_name_in_another_script_has_room_for_its_temporary_one(tmp_path):
    with whole(tmp_path / ("é" * 125)) as part:
        part.write_text("x")
    assert names(tmp_path) == ["é" * 125]
