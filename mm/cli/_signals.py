"""What Lightning's trainer does about signals in a command: nothing, as the command has its own answers."""

from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector


class Unheard(_SignalConnector):
    """Sets no handlers. Lightning's own (2.6) end a run with status 0, and talk to other processes from a handler."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False
