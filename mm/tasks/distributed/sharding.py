"""Training of models that do not fit on one device: FSDP2 over all processes, and activation checkpointing."""

import copy
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint import metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import checkpoint

from mm._compat.torch import BatchNorm
from mm.files import discard, put, refusal, sync
from mm.model import MultimodalModel
from mm.tasks.optim.parameters import check_rules

META = "meta.pt"  # Lightning's name of the file with everything except tensors of the model and the optimizer
INDEXED = (  # classes that torch pickles in the index of a sharded checkpoint, in addition to its metadata classes
    ("pathlib", "PosixPath"),
    ("torch", "Size"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
)
CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # they have no forward


class FSDP2Strategy(ModelParallelStrategy):
    """Shard weights, gradients and optimizer states across all processes with FSDP2 (`fully_shard`).

    Args:
        cpu_offload: Whether to keep the shards in CPU memory and to copy each FSDP unit to the device only while it is
            computed.
        save_distributed_checkpoint: Whether a checkpoint is a folder with one file per process, from which a run with
            any number of processes can resume; otherwise it is a single file.
    """

    def __init__(self, cpu_offload: bool, save_distributed_checkpoint: bool):
        both = cpu_offload and torch.cuda.is_available()  # the norm of gradients in CPU memory needs gloo
        super().__init__(
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend="cpu:gloo,cuda:nccl" if both else None,
        )
        self.cpu_offload = cpu_offload
        self.rebuild: Callable[[Mapping[str, Tensor]], MultimodalModel] | None = None

    def setup_environment(self) -> None:
        """Shard the weights across all processes; Lightning's default is tensor parallelism between those of a node."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def shard(self, model: MultimodalModel) -> None:
        """Shard each unit of a model separately, so that only the unit that is computed has its full weights in memory.

        A model that is already sharded, as in a second stage of the same run, stays unchanged.

        Args:
            model: The model, changed in place.
        """
        if isinstance(model, FSDPModule):  # a second stage of the same run
            return
        self.rebuild = keep_plain(model)
        pinned = torch.cuda.is_available()
        policy = CPUOffloadPolicy(pin_memory=pinned) if self.cpu_offload else OffloadPolicy()
        mesh = self.device_mesh["data_parallel"]
        for name in units(model):
            fully_shard(model.get_submodule(name), mesh=mesh, offload_policy=policy)
        for part in (model, *map(model.get_submodule, shard_units(model))):  # their outputs are never changed in place
            warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \({type(part).__name__}\) returned a view")
        for method in ("encode", "predict"):  # called from outside, like forward
            register_fsdp_forward_method(model, method)

    def shard_heads(self, heads: nn.ModuleDict) -> None:
        """Shard heads that do not belong to the model, each separately. Their weights stay on the device."""
        for head in heads.values():
            if not isinstance(head, FSDPModule):  # it is one in a second stage
                fully_shard(head, mesh=self.device_mesh["data_parallel"])

    def gather_model(self, model: MultimodalModel) -> MultimodalModel:
        """Return the model with its full weights in CPU memory on rank 0, and the sharded model on other ranks.

        Every process has to call this method.
        """
        state: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if not self.is_global_zero:
            return model
        assert self.rebuild is not None
        return self.rebuild(state)

    def model_to_device(self) -> None:
        """Move the task to the device. With `cpu_offload`, the weights of the model stay in CPU memory."""
        if not self.cpu_offload:
            return super().model_to_device()
        assert self.lightning_module is not None
        for name, child in self.lightning_module.named_children():
            if name != "model":
                child.to(self.root_device)
        for module in self.lightning_module.model.modules():  # type: ignore[union-attr]
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.root_device)

    def setup_optimizers(self, trainer: Trainer) -> None:
        super().setup_optimizers(trainer)
        self.unfuse()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        found = super().load_checkpoint(checkpoint_path, weights_only)
        self.unfuse()  # the loaded optimizer state has overwritten `fused`
        return found

    def unfuse(self) -> None:
        """Disable the fused kernel of SGD, which torch 2.14 lacks for sharded weights; that of Adam supports them."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
                group["fused"] = False

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Save a checkpoint under a temporary name and rename it when it is complete.

        A checkpoint folder with the final name is therefore always complete.

        Args:
            checkpoint: The checkpoint.
            filepath: Path of the checkpoint.
            storage_options: Passed on to Lightning.

        Raises:
            OSError: If a process can't write its file. Other errors of the writing processes are raised as they are.
        """
        path = Path(self.broadcast(filepath))
        if not self._save_distributed_checkpoint:
            return super().save_checkpoint(checkpoint, path, storage_options)
        part = path.with_name(path.name + ".part")
        if self.is_global_zero:
            for left in path.parent.glob("*.ckpt.part"):  # left by a process that was killed
                discard(left)
        self.barrier()
        try:
            super().save_checkpoint(checkpoint, part, storage_options)
        except (CheckpointException, OSError, RuntimeError) as error:
            cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            if self.is_global_zero:
                shutil.rmtree(part, ignore_errors=True)
            raise (refusal(cause, path) or cause) from None
        self.barrier()
        if self.is_global_zero:
            replace(part, path)
        self.barrier()


def units(model: MultimodalModel) -> list[str]:
    """Return the names of the modules that are sharded separately, inner modules first; the last name is "", the model.

    These are the parts of the model, so that `encode` and `predict` also work alone, and every repeated block within
    them.
    """
    names = []
    for part in shard_units(model):
        module = model.get_submodule(part)
        if any(True for _ in module.parameters()):
            names += [*(f"{part}.{block}" for block in blocks(module)), part]
    return [*names, ""]


def shard_units(model: MultimodalModel) -> list[str]:
    """Return the names of the modules that a model calls in turn: encoders, projections, heads and the fusion."""
    groups = {"encoders": model.encoders, "projections": model.projections, "heads": model.heads}
    return [*(f"{group}.{name}" for group, named in groups.items() for name in named), "fusion"]


def blocks(module: nn.Module) -> list[str]:
    """Return the names of the repeated blocks of a module.

    These are the children of an nn.ModuleList or nn.Sequential that has at least two children, all of one class and
    with parameters and submodules of their own. Only the outermost lists count. Lists of single layers, such as one
    linear layer per input, do not count.
    """
    found: list[str] = []
    for name, inner in module.named_modules():
        children = list(inner.children())
        repeated = (
            isinstance(inner, nn.ModuleList | nn.Sequential)
            and len(children) > 1
            and len({type(child) for child in children}) == 1
            and all(any(True for _ in child.children()) for child in children)
            and all(any(True for _ in child.parameters()) for child in children)
        )
        if repeated and not any(f"{name}.".startswith(f"{outer}.") for outer in found):
            found += [f"{name}.{child}".lstrip(".") for child, _ in inner.named_children()]
    return found


def keep_plain(model: MultimodalModel) -> Callable[[Mapping[str, Tensor]], MultimodalModel]:
    """Return a function that rebuilds the model as it is now from a full state dict, without sharding.

    The function stores the architecture on the meta device and keeps no copy of the weights.
    """
    shell = copy.deepcopy(model, {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()})

    def rebuild(state: Mapping[str, Tensor]) -> MultimodalModel:
        # Cloned, because tensors that were gathered from uneven shards are views of a larger storage.
        weights = {id(p): nn.Parameter(state[n].clone(), p.requires_grad) for n, p in shell.named_parameters()}
        plain = copy.deepcopy(shell, weights)
        plain.load_state_dict(state)  # buffers
        return plain

    return rebuild


def checkpoint_activations(model: nn.Module, rules: Sequence[str]) -> None:
    """Recompute the activations of the matching modules in the backward pass instead of storing them.

    Args:
        model: The model, changed in place.
        rules: Regular expressions on module names. Of nested modules that match, the outermost is used.

    Raises:
        ValueError: If a rule matches no module, or a module with a batch norm, which would update its statistics twice
            per batch.
    """
    named = {n: m for n, m in model.named_modules() if n and not isinstance(m, CONTAINERS)}
    check_rules(rules, "activation_checkpointing", list(named), "module")
    done: list[str] = []
    for name, module in named.items():
        inside = any(name.startswith(f"{outer}.") for outer in done)
        if not inside and any(re.search(rule, name) for rule in rules):
            if any(isinstance(part, BatchNorm) for part in module.modules()):
                raise ValueError(
                    f"task.activation_checkpointing: {name} has a batch norm, which would count each batch twice; "
                    "choose rules that leave it out"
                )
            # Replace `forward` instead of wrapping the module, which would change the names of its parameters.
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
            done.append(name)


def share_statistics(model: nn.Module) -> None:
    """Copy the running statistics of batch norms from rank 0 to every process, so that all evaluate the same model."""
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            torch.distributed.broadcast(module.running_mean, 0)
            torch.distributed.broadcast(module.running_var, 0)


def is_metadata(module: str, name: str) -> bool:
    """Return whether a name is a class that torch's checkpoint metadata module defines, rather than imports."""
    found = vars(metadata).get(name) if module == metadata.__name__ else None
    return isinstance(found, type) and found.__module__ == metadata.__name__


class ShardIndex(pickle.Unpickler):
    """Unpickler for the index of a sharded checkpoint.

    It admits only the classes that torch writes into an index, so that no other code is executed.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # Python 3.11.0 to 3.11.3 use it to pickle members of an Enum
            return member
        data = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout)
        if data or (module, name) in INDEXED or is_metadata(module, name):
            return super().find_class(module, name)
        raise ValueError(f"the index names {module}.{name}, which no sharded checkpoint has")


def member(kind: Any, name: str) -> Any:
    """Return the member of an Enum with a name; raise ValueError for any other object."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise ValueError(f"the index reads {name!r:.80} of {kind!r:.80}, which is no Enum")
    return kind[name]


def read_index(folder: Path) -> Any:
    """Read the index of a sharded checkpoint, and check that loading the checkpoint executes no code.

    The check includes the pickled parts of the checkpoint's files, which torch would unpickle.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The `Metadata` of torch.distributed.checkpoint.

    Raises:
        ValueError: If the checkpoint contains anything except tensors and plain data, or names files outside of the
            folder.
        FileNotFoundError: If the index or a file that it names does not exist.
    """
    try:
        with (folder / ".metadata").open("rb") as file:
            index = ShardIndex(file).load()
        for key, piece in (index.storage_data or {}).items():
            if Path(piece.relative_path).name != piece.relative_path:
                raise ValueError(f"the index names {piece.relative_path}")
            if isinstance(index.state_dict_metadata.get(key.fqn), metadata.BytesStorageMetadata):
                with (folder / piece.relative_path).open("rb") as file:
                    file.seek(piece.offset)
                    torch.load(BytesIO(file.read(piece.length)), weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged pickle can raise any exception
        told = next(iter(str(error).splitlines()), "")
        raise ValueError(f"{folder}: is damaged, or not of mm: {type(error).__name__}: {told}") from error
    return index


def complete(folder: Path) -> bool:
    """Return whether a sharded checkpoint is complete and safe to load.

    All files that its index names have to exist with their full size, and loading it must not execute code.
    """
    if not (folder / META).is_file():
        return False
    try:
        index = read_index(folder)
    except (FileNotFoundError, ValueError):
        return False
    ends: dict[str, int] = {}
    for piece in (index.storage_data or {}).values():
        ends[piece.relative_path] = max(ends.get(piece.relative_path, 0), piece.offset + piece.length)
    return all((folder / f).is_file() and (folder / f).stat().st_size >= end for f, end in ends.items())


def replace(part: Path, path: Path) -> None:
    """Move a finished folder durably to its final name, in place of the folder that was there.

    Args:
        part: Temporary path of the folder.
        path: Final path of the folder.
    """
    for file in [*part.iterdir(), part]:
        sync(file)
    put(part, path)
    sync(path.parent)
