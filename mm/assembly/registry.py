"""The configs of `mm.conf` as Hydra composes them, with the defaults of the signatures filled in."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from hydra import initialize_config_module
from omegaconf import DictConfig, open_dict

from mm._compat.hydra import before_overrides
from mm._compat.omegaconf import plain_child
from mm.assembly.signatures import default_arguments


@contextmanager
def open_registry() -> Iterator[None]:
    """Let Hydra compose the configs of `mm.conf`, with the defaults of the signatures."""
    with initialize_config_module("mm.conf", version_base="1.3"), signature_defaults():
        yield


def signature_defaults() -> AbstractContextManager[None]:
    """Let Hydra fill the defaults of the signatures into every config that it composes.

    They are filled in before overrides are applied, so that an argument which the yaml leaves out is set as any other.
    """
    return before_overrides(fill_defaults)


def fill_defaults(cfg: DictConfig, keys: Sequence[str] = ()) -> None:
    """Set the arguments that the parts of a config leave out to the defaults of their signatures.

    Args:
        cfg: A composed config.
        keys: Keys that will be overridden. A part whose `_target_` is among them is left as it is: the arguments of one
            class mean nothing to another.
    """
    replaced = {key.rpartition(".")[0] for key in keys if key.rpartition(".")[2] == "_target_"}

    def walk(node: DictConfig, path: str) -> None:
        for key in list(node):
            child = plain_child(node, str(key))
            if child is not None and not (path == "" and key == "hydra"):
                walk(child, f"{path}{key}.")
        target = node._get_node("_target_")
        name = None if target is None else target._value()  # type: ignore[union-attr]
        if isinstance(name, str) and path.rstrip(".") not in replaced:
            stated = list(node)  # also those that the data fills: `in` denies a key whose value is ???
            for argument, default in default_arguments(name).items():
                if argument not in stated:
                    node[argument] = default

    with open_dict(cfg):
        walk(cfg, "")
