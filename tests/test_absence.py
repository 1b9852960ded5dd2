"""Batch statistics of a batch with absent rows are those of its present rows."""

import copy
from pathlib import Path

import pytest
import torch
from processes import run_two
from torch import nn

from mm.absence import encode_present
from mm.contracts import check_encoder
from mm.encoders.audio.huggingface import HuggingFaceAudio
from mm.encoders.vision.timm import TimmVision
from mm.fusion.sum import SumFusion
from mm.layers import single_token
from mm.model import MultimodalModel
from mm.types import Features, InputSpec


class Own(nn.Module):
    """An encoder of a user's own, of sounds, with a batch norm over vectors."""

    embed_dim = 4
    input = InputSpec(modality="audio", sample_rate=8000)

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.linear = nn.Linear(1, 4)
        self.norm = norm
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Features:
        self.rows.append(len(x))
        mean = (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        return single_token(self.norm(self.linear(mean)), mask.any(1))


class Counted(nn.Module):
    """A layer of a user's own that remembers how many rows it has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += len(x)
        return x


def own() -> tuple[Own, MultimodalModel]:
    torch.manual_seed(0)
    encoder = Own(nn.BatchNorm1d(4))
    return encoder, MultimodalModel({"audio": encoder}, SumFusion(inputs=["audio"]), {}, 4)


def batch(*present: bool) -> tuple[dict, dict]:
    mask = torch.tensor(present).unsqueeze(1).expand(-1, 6)
    return {"audio": torch.randn(len(present), 6) + 3}, {"audio": mask}


def test_a_users_own_encoder_in_a_model():
    """The running statistics are torch's of the present rows, and the features are spread over the batch."""
    encoder, model = own()
    inputs, masks = batch(True, False, True, True)
    before = copy.deepcopy(encoder)
    features = model.encode(inputs, masks)["audio"]
    before(inputs["audio"][[0, 2, 3]], masks["audio"][[0, 2, 3]])
    assert encoder.rows == [3]
    assert torch.equal(encoder.norm.running_mean, before.norm.running_mean)
    assert torch.equal(encoder.norm.running_var, before.norm.running_var)
    assert features.mask.flatten().tolist() == [True, False, True, True]
    assert not features.pooled[1].any() and features.pooled[[0, 2, 3]].any(1).all()


@pytest.mark.parametrize("present", [(False, False), (True, False), (True,)])
def test_fewer_than_two_rows_move_nothing_and_every_parameter_has_a_gradient(present):
    """A batch norm over vectors raises for one row; processes wait for the gradients of a batch without any."""
    encoder, model = own()
    before = copy.deepcopy(dict(encoder.named_buffers()))
    features = model.encode(*batch(*present))["audio"]
    features.pooled.sum().backward()
    assert all(torch.equal(b, before[name]) for name, b in encoder.named_buffers())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert bool(encoder.linear.weight.grad.any()) is any(present)
    assert encoder.norm.training


def test_the_dense_path_stays_where_no_statistics_are_computed():
    """In evaluation, with a frozen batch norm, or with all rows present, the encoder sees the batch as it is."""
    encoder, model = own()
    model.encode(*batch(True, True))
    model.eval().encode(*batch(True, False))
    model.train()
    encoder.norm.eval()
    model.encode(*batch(True, False))
    assert encoder.rows == [2, 2, 2]


def test_norms_of_each_row_see_all_rows():
    encoder = Own(nn.LayerNorm(4))
    x, mask = torch.randn(3, 6), torch.tensor([[True], [False], [True]]).expand(-1, 6)
    encode_present(encoder, encoder, x, mask)
    assert encoder.rows == [3]


def test_training_compiles():
    encoder, _ = own()
    plain = copy.deepcopy(encoder)
    inputs, masks = batch(True, False, True)
    torch._dynamo.reset()

    def run(x, mask):
        return encode_present(encoder, encoder, x, mask)

    got = torch.compile(run, backend="eager")(inputs["audio"], masks["audio"])
    wanted = encode_present(plain, plain, inputs["audio"], masks["audio"])
    torch.testing.assert_close(got.pooled, wanted.pooled)
    assert torch.equal(encoder.norm.running_mean, plain.norm.running_mean)


def test_the_contract_finds_statistics_of_absent_rows():
    assert not {name: why for name, why in check_encoder(Own(nn.BatchNorm1d(4))) if why and name == "statistics"}
    failed = {name: why for name, why in check_encoder(Own(Counted())) if why}
    assert "absent rows changed norm.seen" in failed["statistics"]


CONFORMER = {"model_type": "wav2vec2-conformer", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFORMER |= {"intermediate_size": 37, "conv_dim": [32, 32], "conv_kernel": [8, 8], "conv_stride": [4, 4]}
CONFORMER |= {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
CONFORMER |= {"conv_depthwise_kernel_size": 3, "hidden_dropout": 0.0, "attention_dropout": 0.0}
CONFORMER |= {"activation_dropout": 0.0, "feat_proj_dropout": 0.0, "conformer_conv_dropout": 0.0}


@pytest.mark.parametrize(
    "encoder",
    [
        TimmVision("test_resnet", channels=3, size=[32, 32]),
        TimmVision("mobilenetv3_small_050", channels=3, size=[32, 32]),
        HuggingFaceAudio(None, CONFORMER, False, None, "mean"),
    ],
    ids=["resnet", "mobilenet", "wav2vec2-conformer"],
)
def test_encoders_of_libraries(encoder):
    """Called directly, as in a notebook: the statistics after a batch are those of its present rows."""
    torch.manual_seed(0)
    mask = torch.tensor([[True], [False], [True]])
    x = torch.randn(3, 3, 32, 32) if encoder.input.modality == "vision" else torch.randn(3, 2400)
    mask = mask if x.dim() == 4 else mask.expand(-1, 2400)
    beside, alone = copy.deepcopy(encoder).train(), copy.deepcopy(encoder).train()
    beside(x, mask)
    alone(x[[0, 2]], mask[[0, 2]])
    buffers = dict(alone.named_buffers())
    assert any("running_mean" in name for name in buffers)
    for name, buffer in beside.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], msg=name)


class SyncOnCPU(nn.SyncBatchNorm):
    """Torch's needs a GPU: the same statistics over all processes, by differentiable sums."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        sums = torch.cat([x.sum(0), x.square().sum(0), x.new_full((1,), len(x))])
        sums = torch.distributed.nn.functional.all_reduce(sums)
        mean, square = (part / sums[-1] for part in sums[:-1].chunk(2))
        self.running_mean.lerp_(mean.detach(), 0.1)
        return (x - mean) / (square - mean.square() + self.eps).sqrt() * self.weight + self.bias


def in_a_process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    encoder = Own(SyncOnCPU(4))
    torch.manual_seed(0)
    nn.init.normal_(encoder.linear.weight)
    x = torch.arange(24.0).view(4, 6)
    found = []
    # of rank 0 and of rank 1: both rows of the one and none of the other; one row in all; none at all
    for present in ([[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]):
        mask = torch.tensor(present[rank]).bool().unsqueeze(1).expand(-1, 6)
        encoder.zero_grad()
        encode_present(encoder, encoder, x[2 * rank :][:2], mask).pooled.square().sum().backward()
        found.append((encoder.norm.running_mean.clone(), encoder.linear.weight.grad.clone()))
    torch.save(found, folder / f"{rank}.pt")


def test_processes_that_share_statistics_do_not_wait_for_one_without_rows(tmp_path):
    """Statistics are of the rows of all processes; where these are fewer than two, no process computes any."""
    run_two(in_a_process, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for (mean, _), (same, gradient) in zip(one, other, strict=True):
        assert torch.equal(mean, same)
        assert not gradient.any()
    first, second, third = (mean for mean, _ in one)
    assert first.any() and torch.equal(first, second) and torch.equal(second, third)
