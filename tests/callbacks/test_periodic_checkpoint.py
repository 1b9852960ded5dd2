"""Signals between several processes; what is kept is tested by runs, in tests/cli/test_resume.py."""

import signal
from types import SimpleNamespace

import pytest

from mm.callbacks.periodic_checkpoint import PeriodicCheckpoint
from mm.signals import REPEAT, Stopped


class Other:
    """A process that hears of `signum` while they agree, and no other process."""

    root_device = "cpu"

    def __init__(self, callback, signum):
        self.callback, self.signum = callback, signum

    def reduce(self, word, reduce_op):
        signum, self.signum = self.signum, 0
        if signum:
            self.callback.hear(signum, None)
        return word


def test_a_signal_that_arrives_while_processes_agree_is_for_the_next_time(tmp_path, capsys):
    callback = PeriodicCheckpoint(str(tmp_path))
    trainer = SimpleNamespace(world_size=2, strategy=Other(callback, signal.SIGTERM))
    callback.agree(trainer)
    assert not callback.signum
    callback.ticks = callback.next_word
    callback.agree(trainer)
    assert callback.signum == signal.SIGTERM
    assert callback.wanted
    callback.saved_step = callback.step
    with pytest.raises(Stopped, match="143"):
        callback.answer()
    assert not callback.heard


def test_one_signal_after_the_other_and_the_same_once_more(tmp_path, capsys):
    callback, answered = PeriodicCheckpoint(str(tmp_path)), []
    callback.before = dict.fromkeys((signal.SIGTERM, signal.SIGUSR1), lambda signum, frame: answered.append(signum))
    trainer = SimpleNamespace(world_size=2, strategy=Other(callback, signal.SIGUSR1))
    callback.hear(signal.SIGTERM, None)
    for _ in range(3):
        callback.ticks = callback.step = callback.saved_step = callback.next_word
        callback.agree(trainer)
        callback.answer()
    assert answered == [signal.SIGTERM, signal.SIGUSR1]
    callback.hear(signal.SIGTERM, None)
    callback.hear(signal.SIGTERM, None)  # as GNU timeout sends it, to its child and to the whole group
    callback.heard[signal.SIGTERM] -= 2 * REPEAT
    with pytest.raises(Stopped):
        callback.hear(signal.SIGTERM, None)
