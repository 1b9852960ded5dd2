"""Replacements for two parts of Lightning's Trainer: the launcher of processes and the connector for signals."""

from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from mm.launch import processes


class NoSignalConnector(_SignalConnector):
    """Signal connector of a Trainer that sets no signal handlers.

    Lightning's own handlers (version 2.6) end a run with exit status 0, and communicate with other processes.
    """

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


class MonitoredLauncher(_SubprocessScriptLauncher):
    """Launcher that starts the processes of a run and monitors them with a `ProcessMonitor`.

    Lightning's own monitor kills rank 0 with SIGKILL, so that no error message appears, and nothing monitors rank 0.
    """

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, and then call the function in this process."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            with processes.report_folder() as folder:
                try:
                    self._call_children_scripts()
                except BaseException:  # a signal, say: nobody monitors those that are started already
                    processes.kill(self.procs)
                    raise
            monitor = processes.ProcessMonitor(self.procs, folder)
            processes.monitors.append(monitor)
            monitor.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def adapt_trainer(trainer: Trainer) -> Trainer:
    """Replace the signal connector and the launcher of a Trainer, in place.

    Afterwards it sets no signal handlers, and the processes that it starts are monitored.

    Args:
        trainer: The Trainer.

    Returns:
        The same Trainer.
    """
    trainer._signal_connector = NoSignalConnector(trainer)
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = MonitoredLauncher(
            launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )
    return trainer
