"""Suppression of irrelevant warnings and log messages of libraries, and restoring of global state."""

import logging
import random
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*`srun` command is available.*",  # on a cluster's login node
    ".*your dataloader is not resumable.*",  # its datamodule is
    ".*in eval mode at the start of training.*",  # frozen encoders
    ".*training_step. returned .None.*",  # task.nonfinite has told of it
    ".*WeightAveraging doesn't support sharding.*",
    ".*recommended to use .self.log.*sync_dist=True.*",  # metrics are synced already
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*you set `weights_only=.*",
    ".*could not find the monitored key in the returned metrics.*",  # a message of ours says why validation never came
    "Metric `SpearmanCorrcoef` will save all.*",  # two numbers a row
)
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")


def silence_lightning() -> None:
    """Ignore Lightning's tips, and its warnings about intended behaviour of `mm`."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message)


@contextmanager
def preserved_state() -> Iterator[None]:
    """Context manager that restores random states, warning filters, log levels and the handler of Ctrl-C at the end."""
    states = random.getstate(), np.random.get_state(), signal.getsignal(signal.SIGINT)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with torch.random.fork_rng(), warnings.catch_warnings():
        silence_lightning()
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            if states[2] is not None and signal.getsignal(signal.SIGINT) is not states[2]:
                signal.signal(signal.SIGINT, states[2])
