"""Private APIs of dependencies are there and do what is expected of them."""

import ast
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from omegaconf import OmegaConf
from torch import nn

from mm._compat.lightning import clear_restart, is_accumulating, is_validation_due, swap_averaged_weights
from mm._compat.omegaconf import plain_child
from mm._compat.torch import BatchNorm, TorchDispatchMode, tree_map_only
from mm._compat.transformers import model_class

ROOT = Path(__file__).parents[1]


class Line(LightningModule):
    """Notes at every batch what is asked of the loops."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[bool, bool]] = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append((is_accumulating(self.trainer), is_validation_due(self.trainer)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(tmp_path, *callbacks) -> tuple[Line, Trainer]:
    loader = torch.utils.data.DataLoader(torch.ones(4, 1), num_workers=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        **quiet,
    )
    model = Line()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few workers and short epochs
        trainer.fit(model, loader, loader)
    return model, trainer


def test_loops_say_where_they_stand(tmp_path):
    model, trainer = trained(tmp_path)
    assert [accumulating for accumulating, _ in model.seen] == [True, False, True, False]
    assert [due for _, due in model.seen] == [False, False, False, True]
    trainer.fit_loop.epoch_loop.restarting = True
    clear_restart(trainer)
    assert not trainer.fit_loop.restarting and not trainer.fit_loop.epoch_loop.restarting


def test_averaged_weights_are_exchanged_and_back(tmp_path):
    average = EMAWeightAveraging(decay=0.5)
    model, _ = trained(tmp_path, average)
    before = model.layer.weight.detach().clone()
    swap_averaged_weights(average, model)
    changed = model.layer.weight.detach().clone()
    swap_averaged_weights(average, model)
    assert torch.equal(model.layer.weight, before)
    assert changed.shape == before.shape


def test_batch_norms_have_a_common_class():
    assert isinstance(nn.BatchNorm1d(1), BatchNorm) and isinstance(nn.SyncBatchNorm(1), BatchNorm)
    assert not isinstance(nn.LayerNorm(1), BatchNorm)


def test_a_tree_is_mapped_where_a_type_is():
    assert tree_map_only(int, lambda x: x + 1, {"a": [1, "b"]}) == {"a": [2, "b"]}


def test_a_mode_sees_every_call():
    names = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        torch.ones(2) + 1
    assert any("add" in name for name in names)


def test_the_class_of_a_config():
    from transformers import BertConfig, BertModel

    assert model_class(BertConfig()) is BertModel


def test_children_of_a_config():
    node = OmegaConf.create({"a": {"b": 1}, "c": None, "d": "${a}", "e": 3, "f": "???"})
    assert plain_child(node, "a") == {"b": 1}
    assert [plain_child(node, key) for key in "cdef"] == [None] * 4


def test_private_modules_are_imported_in_one_place():
    allowed = {"mm/assembly/launcher.py"}  # replaces Lightning's launcher and signal handlers as a whole
    for file in sorted(ROOT.glob("mm/**/*.py")):
        name = str(file.relative_to(ROOT))
        if name.startswith("mm/_compat/") or name in allowed:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("mm"):
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not [p for p in parts if p.startswith("_") and p != "__version__"], f"{name}: {node.module}"
