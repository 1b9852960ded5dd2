"""Handlers of signals, and worker processes that outlive them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from mm.signals import REPEAT, SIGNALS, Stopped, Stopper, stopping

WORKER = """
import os, signal, sys, time
from mm.signals import answer_parent_only
child = os.fork()
if not child:
    answer_parent_only()
    print("ready", flush=True)
    time.sleep(30)
    os._exit(7)
for line in sys.stdin:
    if line.strip() == "end":
        os.kill(child, signal.SIGTERM)
        print(os.waitpid(child, 0)[1], flush=True)
    else:
        print(child, flush=True)
"""


def test_a_worker_ignores_all_but_its_parent():
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WORKER], text=True, env=own, **pipes) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        print("who", file=parent.stdin, flush=True)
        child = int(parent.stdout.readline())
        for signum in SIGNALS:
            os.kill(child, signum)
        time.sleep(0.3)
        os.kill(child, 0)  # it is there
        print("end", file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "0\n"
        parent.stdin.close()


@pytest.fixture
def heeded():
    """No signal is ignored, as nohup, under which the tests may run, ignores SIGHUP: then it stays ignored."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_raised_as_stopped_and_handlers_are_put_back(signum, heeded):
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with pytest.raises(Stopped) as caught, stopping():
        signal.raise_signal(signum)
    assert caught.value.code == 128 + signum
    assert caught.value.signal == signum.name
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


def test_what_somebody_listens_for_is_his():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        with stopping():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_signal_counts_once_within_a_second_and_then_ends_the_process(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    stopper = Stopper()
    with pytest.raises(Stopped):
        stopper(signal.SIGTERM, None)
    stopper(signal.SIGTERM, None)  # GNU timeout sends it twice
    assert not ended
    stopper.since -= 2 * REPEAT
    stopper(signal.SIGINT, None)
    assert ended == [130]


def test_a_forked_process_leaves_the_handler_alone():
    stopper = Stopper()
    stopper.owner = -1
    stopper(signal.SIGTERM, None)
    assert not stopper.signum
