"""The configs in `mm.conf` for Hydra, completed with the default arguments of the classes that they build."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from hydra import initialize_config_module
from omegaconf import DictConfig, open_dict

from mm._compat.hydra import before_overrides
from mm._compat.omegaconf import plain_child
from mm.assembly.signatures import default_arguments


@contextmanager
def open_registry() -> Iterator[None]:
    """Context manager in which Hydra composes configs from `mm.conf`, with the default arguments of their classes."""
    with initialize_config_module("mm.conf", version_base="1.3"), signature_defaults():
        yield


def signature_defaults() -> AbstractContextManager[None]:
    """Return a context manager in which Hydra adds default arguments to every config that it composes.

    They are added before overrides are applied, so that an argument that the yaml leaves out can be set like any other.
    """
    return before_overrides(fill_defaults)


def fill_defaults(cfg: DictConfig, keys: Sequence[str] = ()) -> None:
    """Set the arguments that the parts of a config leave out to the defaults in the signatures of their classes.

    Args:
        cfg: A composed config, changed in place.
        keys: Keys that are overridden afterwards. A part whose `_target_` is among them is not changed, because the
            arguments of its class may not exist in the other one.
    """
    replaced = {key.rpartition(".")[0] for key in keys if key.rpartition(".")[2] == "_target_"}

    def walk(node: DictConfig, path: str) -> None:
        for key in list(node):
            child = plain_child(node, str(key))
            if child is not None and not (path == "" and key == "hydra"):
                walk(child, f"{path}{key}.")
        target = node._get_node("_target_")
        name = None if target is None else target._value()
        if isinstance(name, str) and path.rstrip(".") not in replaced:
            stated = list(node)  # also those that the data fills: `in` denies a key whose value is ???
            for argument, default in default_arguments(name).items():
                if argument not in stated:
                    node[argument] = default

    with open_dict(cfg):
        walk(cfg, "")
