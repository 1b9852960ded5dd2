"""Who owns a run folder: claimed by one process, locked while it is at work, never removed by another."""

import errno
import os
import subprocess
import sys

import pytest

from mm.runs.folder import TakenError, claim, read_overrides, reopen, write_overrides

WORKER = "import sys, time; from pathlib import Path; from mm.runs.folder import claim, reopen\n"


def test_a_new_folder_is_created_and_removed_again_where_nothing_was_made(tmp_path):
    folder = claim(tmp_path / "outputs/a", typed=True)
    assert folder.created and folder.path.is_dir()
    write_overrides(folder.path, "train", ["seed=1"])
    (folder.path / "config.yaml").touch()
    (folder.path / "checkpoints").mkdir()
    folder.discard()
    assert (folder.path / "config.yaml").exists()  # something was made, by an error that is no user's mistake
    folder.discard(begun=True)
    assert not folder.path.exists()
    folder.release()


@pytest.mark.parametrize("name", ["notes/README", "config.yaml", "overrides.yaml", ".hidden", "src/Makefile"])
def test_a_folder_with_files_is_refused_and_stays_as_it_is(tmp_path, name):
    file = tmp_path / "a" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("three weeks of work")
    again = "go on with resume=true, " if name == "overrides.yaml" else ""
    with pytest.raises(TakenError, match=f"is not empty; choose another run=NAME, {again}or delete it"):
        claim(tmp_path / "a", typed=True, resumable=True)
    assert file.read_text() == "three weeks of work"


def test_an_empty_folder_is_taken_but_never_removed(tmp_path):
    (tmp_path / "a").mkdir()
    folder = claim(tmp_path / "a", typed=True)
    (folder.path / "config.yaml").touch()
    folder.discard(begun=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"] and not list(folder.path.iterdir())


def test_what_appears_beside_the_runs_own_files_keeps_the_folder(tmp_path):
    folder = claim(tmp_path / "a", typed=True)
    (folder.path / "config.yaml").touch()
    (folder.path / "mine.txt").touch()
    folder.discard(begun=True)
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "mine.txt"}


def test_a_default_name_that_is_taken_gets_a_number(tmp_path):
    names = [claim(tmp_path / "train-now", typed=False).path.name for _ in range(3)]
    assert names == ["train-now", "train-now-1", "train-now-2"]


def test_of_two_processes_one_has_the_folder(tmp_path):
    code = WORKER + "claim(Path(sys.argv[1]), typed=True); print('mine', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    with pytest.raises(TakenError, match="a run is at work in"):
        claim(tmp_path / "a", typed=True)
    other.kill()
    other.wait()
    other.stdout.close()
    claim(tmp_path / "a", typed=True)  # the lock has ended with its process


def test_a_run_is_resumed_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("mm.runs.folder.PATIENCE", 0)
    with pytest.raises(ValueError, match="there is no run in"):
        reopen(tmp_path)
    write_overrides(tmp_path, "train", ["seed=1"])
    folder = reopen(tmp_path)
    with pytest.raises(TakenError, match="a run is at work in"):
        reopen(tmp_path)
    folder.discard(begun=True)
    assert read_overrides(tmp_path) == ["seed=1"]
    folder.release()
    reopen(tmp_path).release()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    folder = claim(tmp_path / "a", typed=True)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    folder.release()
    claim(tmp_path / "a", typed=True).release()
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    for end in (*ready, *go):
        os.close(end)


def test_where_no_folder_can_be_made_the_key_is_named(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(ValueError, match=r"choose another place with paths\.outputs=DIR"):
        claim(tmp_path / "outputs/a", typed=True)


@pytest.fixture
def network(monkeypatch):
    """Folders can't be locked, as on NFS, where a record lock on a file works."""

    def flock(descriptor, operation):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("fcntl.flock", flock)


def test_on_a_network_file_system_a_file_is_locked(tmp_path, network, monkeypatch):
    monkeypatch.setattr("mm.runs.folder.PATIENCE", 0)
    code = WORKER + (
        "import errno, fcntl\n"
        "def flock(*args): raise OSError(errno.EBADF, 'no')\n"
        "fcntl.flock = flock\n"
        "folder = claim(Path(sys.argv[1]), typed=True); print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "mine\n"
    with pytest.raises(TakenError, match="a run is at work in"):
        claim(tmp_path / "a", typed=True)
    write_overrides(tmp_path / "a", "train", ["seed=1"])
    with pytest.raises(TakenError, match="a run is at work in"):
        reopen(tmp_path / "a")
    other.kill()
    other.communicate()
    reopen(tmp_path / "a").release()  # the lock has ended with its process
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["overrides.yaml"]


def test_the_lock_file_is_no_file_of_the_run(tmp_path, network):
    folder = claim(tmp_path / "a", typed=True)
    assert [path.name for path in folder.path.iterdir()] == [".lock"]
    folder.discard()
    folder.release()
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/.lock").touch()  # of a process that was killed
    claim(tmp_path / "b", typed=True).release()
    assert list(tmp_path.rglob("*")) == [tmp_path / "b"]


def test_without_any_locks_only_a_new_folder_is_taken(tmp_path, network, monkeypatch):
    def lockf(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", lockf)
    folder = claim(tmp_path / "a", typed=True)
    assert folder.lock is None and not list(folder.path.iterdir())
    with pytest.raises(TakenError, match="has no locks to tell whether a run is at work in it"):
        claim(tmp_path / "a", typed=True)
    assert claim(tmp_path / "a", typed=False).path.name == "a-1"


def test_a_folder_that_disappears_while_it_is_claimed_is_created_again(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    before = os.open(tmp_path / "a", os.O_RDONLY)
    opened, calls = os.open, []

    def late(path, *args):
        if path == tmp_path / "a" and not calls:
            calls.append(path)
            (tmp_path / "a").rmdir()  # by the process that had it
            return os.dup(before)
        return opened(path, *args)

    monkeypatch.setattr("os.open", late)
    folder = claim(tmp_path / "a", typed=True)
    assert calls and folder.created and folder.path.is_dir()
    folder.release()
    os.close(before)


def test_a_name_of_a_file_or_of_a_dead_link_is_refused(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    for name in "ab":
        with pytest.raises(TakenError, match="is a file"):
            claim(tmp_path / name, typed=True)


def test_resuming_removes_what_killed_writers_have_left(tmp_path):
    code = "import os, sys; from pathlib import Path; from mm.files import whole\n"
    code += "with whole(Path(sys.argv[1])) as part: part.write_text('half'); os._exit(1)"
    (tmp_path / "checkpoints").mkdir()
    write_overrides(tmp_path, "train", [])
    for step in (1, 2):
        file = tmp_path / f"checkpoints/last-{step}.ckpt"
        subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    (tmp_path / "checkpoints/mine.part").touch()
    assert len(list(tmp_path.glob("checkpoints/last-*.part"))) == 2
    reopen(tmp_path).release()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["mine.part"]
