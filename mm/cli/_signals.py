"""What ends a run from outside while it is tested, when there is nothing to save."""

import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mm.callbacks.resumable import SIGNALS, Stopped

UNHEARD = (signal.SIG_DFL, signal.default_int_handler)


class Ends(Callback):
    """In a test or a validation of its own, a signal that nobody else listens for ends the run as `Stopped`.

    Lightning's handler of SIGTERM would end it with status 0. Whoever listened before Lightning hears it again.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}  # who listened for each signal

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.listen(trainer)

    def listen(self, trainer: Trainer) -> None:
        """Until Lightning's end of this pass, which gives every signal back to who had it before."""
        launcher = trainer.strategy.launcher

        def end(signum: int, frame: Any) -> None:
            if isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(signum)  # type: ignore[arg-type]  # those that this process has started
            raise Stopped(signum)

        for signum, handler in self.before.items():
            signal.signal(signum, end if handler in UNHEARD else handler)
