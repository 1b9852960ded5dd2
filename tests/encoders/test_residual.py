import torch
from torch import nn

from mm.encoders._residual import MaskedBatchNorm, MeanMaxPool, ResidualNetwork


def test_batch_norm_leaves_padding_out():
    torch.manual_seed(0)
    norm, reference = MaskedBatchNorm(3), nn.BatchNorm1d(3)
    x = torch.randn(2, 3, 4, 5)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    x[1, :, :, 2:] = 100.0  # padding
    y = norm(x, mask)
    real = torch.cat([x[0], x[1, :, :, :2]], dim=2)  # (C, H, 7), the columns of both rows one after the other
    wanted = reference(real.flatten(1)[None])[0].view(3, 4, 7)
    torch.testing.assert_close(torch.cat([y[0], y[1, :, :, :2]], dim=2), wanted)
    assert (y[1, :, :, 2:] == 0).all()
    torch.testing.assert_close(norm.norm.running_var, reference.running_var)


def test_batch_norm_of_a_mask_that_is_all_true_equals_none():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(MaskedBatchNorm(3)(x, mask), MaskedBatchNorm(3)(x, None))
    torch.testing.assert_close(MaskedBatchNorm(3).eval()(x, mask), MaskedBatchNorm(3).eval()(x, None))


def test_sizes_and_layer_order():
    network = ResidualNetwork(1, (4, 8, 8), depth=2, stem_stride=(4, 2))
    x, mask = network(torch.randn(2, 1, 64, 30), torch.arange(30) < torch.tensor([[30], [13]]))
    assert x.shape == (2, 8, 4, 4)  # 64 -> 16, 8, 4 and 30 -> 15, 8, 4
    assert mask.sum(1).tolist() == [4, 2]  # 13 -> 7, 4, 2
    names = [name for name, _ in network.named_parameters(prefix="network")]
    prefixes = [prefix for layer in network.layer_order("network") for prefix in layer]
    assert all(sum(name.startswith(f"{p}.") for p in prefixes) == 1 for name in names)


def test_mean_and_maximum():
    pool = MeanMaxPool(2)
    nn.init.zeros_(pool.project.bias)
    pool.project.weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    tokens = torch.tensor([[[1.0, 5.0], [3.0, 2.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pool(tokens, mask).tolist() == [[2.0, 5.0]]
    assert pool(tokens * 0, mask & False).tolist() == [[0.0, 0.0]]
