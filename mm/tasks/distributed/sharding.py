"""Models that don't fit: FSDP2 over all processes, and activations computed twice instead of kept."""

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

META = "meta.pt"  # what Lightning calls the file of all that is no tensor of the model or the optimizer
INDEXED = (  # what torch pickles in the index of a sharded checkpoint, beside its own metadata
    ("pathlib", "PosixPath"),
    ("torch", "Size"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
)
CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # which nothing calls


class FSDP2Strategy(ModelParallelStrategy):
    """FSDP2: every process holds a part of each weight, gradient and optimizer state.

    cpu_offload: keep those parts in main memory, on the device only while a unit computes; save_distributed_checkpoint:
    a folder to which every process writes its part, which any number of processes resumes from, else one file.
    """

    def __init__(self, cpu_offload: bool, save_distributed_checkpoint: bool):
        both = cpu_offload and torch.cuda.is_available()  # the norm of gradients that lie in main memory needs gloo
        super().__init__(
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend="cpu:gloo,cuda:nccl" if both else None,
        )
        self.cpu_offload = cpu_offload
        self.rebuild: Callable[[Mapping[str, Tensor]], MultimodalModel] | None = None

    def setup_environment(self) -> None:
        """All processes share the weights; left to itself, Lightning would have those of a node share each layer."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def shard(self, model: MultimodalModel) -> None:
        """Every unit by itself: only what is at work is whole."""
        if isinstance(model, FSDPModule):  # a second stage of the same run
            return
        self.rebuild = keep_plain(model)
        pinned = torch.cuda.is_available()
        policy = CPUOffloadPolicy(pin_memory=pinned) if self.cpu_offload else OffloadPolicy()
        mesh = self.device_mesh["data_parallel"]
        for name in units(model):
            fully_shard(model.get_submodule(name), mesh=mesh, offload_policy=policy)
        for part in (model, *map(model.get_submodule, shard_units(model))):  # what they give is never changed in place
            warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \({type(part).__name__}\) returned a view")
        for method in ("encode", "predict"):  # the doors besides forward
            register_fsdp_forward_method(model, method)

    def shard_heads(self, heads: nn.ModuleDict) -> None:
        """Heads besides the model's, each by itself; they stay on the device."""
        for head in heads.values():
            if not isinstance(head, FSDPModule):  # as it is in a second stage
                fully_shard(head, mesh=self.device_mesh["data_parallel"])

    def gather_model(self, model: MultimodalModel) -> MultimodalModel:
        """The same model with all its weights, in main memory, for rank zero; every process has to call it."""
        state: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if not self.is_global_zero:
            return model
        assert self.rebuild is not None
        return self.rebuild(state)

    def model_to_device(self) -> None:
        """Weights that are kept in main memory stay there; buffers and metrics go to the device."""
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
        self.unfuse()  # what was saved says how the saving run stepped
        return found

    def unfuse(self) -> None:
        """One kernel for Adam's step takes parts of a weight; torch 2.14 has none for SGD's."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
                group["fused"] = False

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Beside its name, then renamed: a folder of that name is complete. Errors: what stopped a process writing."""
        path = Path(self.broadcast(filepath))
        if not self._save_distributed_checkpoint:
            return super().save_checkpoint(checkpoint, path, storage_options)
        part = path.with_name(path.name + ".part")
        if self.is_global_zero:
            for left in path.parent.glob("*.ckpt.part"):  # by a process that was killed
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
    """Names of what is sharded by itself, inner ones first; the last is "", the model.

    The model's parts, so that `encode` and `predict` work alone as well; within them every repeated block.
    """
    names = []
    for part in shard_units(model):
        module = model.get_submodule(part)
        if any(True for _ in module.parameters()):
            names += [*(f"{part}.{block}" for block in blocks(module)), part]
    return [*names, ""]


def shard_units(model: MultimodalModel) -> list[str]:
    """Names of what a model calls one after the other."""
    groups = {"encoders": model.encoders, "projections": model.projections, "heads": model.heads}
    return [*(f"{group}.{name}" for group, named in groups.items() for name in named), "fusion"]


def blocks(module: nn.Module) -> list[str]:
    """Names of the repeated blocks: children of one list, two or more, of one class, with parts of their own.

    Outermost ones only; lists of single layers, such as a linear one per input, are none.
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
    """A function from a whole state dict to the model as it is now, but with those weights. Holds no weights itself."""
    shell = copy.deepcopy(model, {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()})

    def rebuild(state: Mapping[str, Tensor]) -> MultimodalModel:
        # Copies: what was gathered from uneven parts lies in a larger storage.
        weights = {id(p): nn.Parameter(state[n].clone(), p.requires_grad) for n, p in shell.named_parameters()}
        plain = copy.deepcopy(shell, weights)
        plain.load_state_dict(state)  # buffers
        return plain

    return rebuild


def checkpoint_activations(model: nn.Module, rules: Sequence[str]) -> None:
    """Compute the activations of every module that a rule finds anew in the backward pass, instead of keeping them.

    rules: regexes on module names; of nested modules the outermost counts. Errors: ValueError where a rule finds none,
    or a batch norm, which would count each batch twice.
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
            # An attribute, not a wrapper: names of parameters stay.
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
            done.append(name)


def share_statistics(model: nn.Module) -> None:
    """Every process takes rank zero's running statistics of batch norms, else each would measure another model."""
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            torch.distributed.broadcast(module.running_mean, 0)
            torch.distributed.broadcast(module.running_var, 0)


def is_metadata(module: str, name: str) -> bool:
    """Whether a name is that of a class of torch's metadata, and not of what its module has imported."""
    found = vars(metadata).get(name) if module == metadata.__name__ else None
    return isinstance(found, type) and found.__module__ == metadata.__name__


class ShardIndex(pickle.Unpickler):
    """Reads the index of a sharded checkpoint, which torch pickles: its own classes alone, so that nothing is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # by which Python 3.11.0 to 3.11.3 pickle members of an Enum
            return member
        data = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout)
        if data or (module, name) in INDEXED or is_metadata(module, name):
            return super().find_class(module, name)
        raise ValueError(f"the index names {module}.{name}, which no sharded checkpoint has")


def member(kind: Any, name: str) -> Any:
    """Return a member of an Enum by its name, and nothing else."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise ValueError(f"the index reads {name!r:.80} of {kind!r:.80}, which is no Enum")
    return kind[name]


def read_index(folder: Path) -> Any:
    """Read the index of a sharded checkpoint, and check that loading it runs nothing: torch would unpickle parts of it.

    Args:
        folder: The checkpoint.

    Returns:
        torch's Metadata.

    Raises:
        ValueError: If it holds anything but tensors and plain data, or names files outside of the folder.
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
    except Exception as error:  # a pickle that is damaged raises anything
        told = next(iter(str(error).splitlines()), "")
        raise ValueError(f"{folder}: is damaged, or not of mm: {type(error).__name__}: {told}") from error
    return index


def complete(folder: Path) -> bool:
    """Whether a sharded checkpoint has all that its index names, and nothing that would run."""
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
    """Move a finished folder to its name, for good, and remove what was there."""
    for file in [*part.iterdir(), part]:
        sync(file)
    put(part, path)
    sync(path.parent)
