"""Replacements of two parts of Lightning's trainer: its launcher of processes and its handlers of signals."""

from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from mm.launch import processes


class NoSignalConnector(_SignalConnector):
    """Sets no handlers. Lightning's own (2.6) end a run with status 0, and talk to other processes from a handler."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


class MonitoredLauncher(_SubprocessScriptLauncher):
    """Starts processes under a `ProcessMonitor`.

    Lightning's own monitor kills the first process by SIGKILL, so that no error is shown, and is not monitored itself.
    """

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, then call the function."""
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
    """Let a trainer set no handlers of signals, and monitor the processes that it starts. Returns the same trainer."""
    trainer._signal_connector = NoSignalConnector(trainer)
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = MonitoredLauncher(
            launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )
    return trainer
