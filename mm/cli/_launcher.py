"""Lightning's launcher of processes, with our watch over them."""

from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mm.cli import _processes


class Launcher(_SubprocessScriptLauncher):
    """Lightning's own watch kills the first process by SIGKILL, so that nothing is told, and is itself not watched."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes, then call the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            with _processes.starting() as folder:
                try:
                    self._call_children_scripts()
                except BaseException:  # a signal, say: nobody watches those that are started already
                    _processes.kill(self.procs)
                    raise
            watch = _processes.Watch(self.procs, folder)
            _processes.watching.append(watch)
            watch.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def watched(trainer: Trainer) -> Trainer:
    """The same trainer; where it starts processes, they are watched."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
    return trainer
