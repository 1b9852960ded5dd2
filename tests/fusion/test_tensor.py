"""The outer product in numbers, and against einsum; sizes that are too large."""

import pytest
import torch

from mm.contracts import random_features
from mm.fusion.tensor import TensorFusion, outer


def test_outer_product_of_two_by_hand():
    x, y = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    assert outer([x, y]).view(3, 3).tolist() == [[10, 14, 2], [15, 21, 3], [5, 7, 1]]


def test_outer_product_of_three_against_einsum():
    torch.manual_seed(0)
    vectors = [torch.randn(4, 3) for _ in range(3)]
    x, y, z = (torch.cat([v, torch.ones(4, 1)], dim=1) for v in vectors)
    torch.testing.assert_close(outer(vectors), torch.einsum("ba,bc,bd->bacd", x, y, z).flatten(1))


def test_of_an_absent_input_only_the_one_remains():
    torch.manual_seed(0)
    fusion = TensorFusion(inputs=["a", "b"], embed_dim=8, projection_dim=3).eval()
    none = torch.tensor([True, False])
    features = {"a": random_features(2, 4, 8), "b": random_features(2, 4, 8, none)}
    layer = fusion.mlp[1]
    seen = []
    layer.register_forward_hook(lambda _module, args, _result: seen.append(args[0]))
    fusion(features)
    product = seen[0][1].view(4, 4)  # of the row without b: its entries, then the 1
    assert not product[:, :3].any()
    wanted = fusion.projections[0](features["a"].pooled[1])
    torch.testing.assert_close(product[:, 3], torch.cat([wanted, torch.ones(1)]))


def test_a_product_that_is_too_large_is_refused_with_one_that_is_not():
    names = list("abcde")
    with pytest.raises(ValueError, match="1,419,857 entries and its layer 181,741,696 weights") as error:
        TensorFusion(inputs=names, embed_dim=128)
    most = int(str(error.value).split("set it to ")[1].split(",")[0])
    assert (most + 1) ** 5 * 128 <= 2**24 < (most + 2) ** 5 * 128
