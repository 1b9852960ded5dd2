"""Which transformer reads which input, and what stays of an input alone."""

import torch

from mm.contracts import random_features
from mm.fusion.mult import MulTFusion
from mm.layers import masked_mean

NAMES = ["text", "vision", "audio"]
NONE = torch.tensor([False, False])


def test_each_ordered_pair_reads_its_source_for_its_target():
    torch.manual_seed(0)
    fusion = MulTFusion(inputs=NAMES, embed_dim=8, num_layers=2, num_heads=2).eval()
    features = {name: random_features(2, 3 + i, 8) for i, name in enumerate(NAMES)}  # told apart by their lengths
    read = []
    for cross in fusion.crossmodal:
        for block in cross.blocks:
            block.register_forward_hook(
                lambda _m, args, y: read.append((args[0].shape[1], args[2].shape[1], y.shape[1]))
            )
    fusion(features)
    wanted = [(3, 4), (3, 5), (4, 3), (4, 5), (5, 3), (5, 4)]
    assert read == [(target, source, target) for target, source in wanted for _ in range(2)]


def test_an_input_alone_goes_through_its_own_transformer():
    torch.manual_seed(0)
    fusion = MulTFusion(inputs=["text", "audio"], embed_dim=8, num_layers=1, num_heads=2).eval()
    text, audio = random_features(2, 3, 8), random_features(2, 4, 8, NONE)
    fused = fusion({"text": text, "audio": audio})
    x = fusion.embedding({"text": text, "audio": audio})["text"] + fusion.merge[0].bias
    x = fusion.norm(fusion.unimodal[0](x, text.mask))
    torch.testing.assert_close(fused.tokens[:, :3], x)
    mean = torch.cat([masked_mean(x, text.mask), torch.zeros(2, 8)], dim=1)
    torch.testing.assert_close(fused.pooled, fusion.out(mean))


def test_tokens_of_all_inputs_in_order_and_each_sees_the_others():
    torch.manual_seed(0)
    fusion = MulTFusion(inputs=NAMES, embed_dim=8, num_layers=1, num_heads=2).eval()
    features = {name: random_features(2, 3, 8) for name in reversed(NAMES)}
    before = fusion(features)
    assert torch.equal(before.position, torch.cat([features[name].position for name in NAMES], dim=1))
    after = fusion({**features, "audio": random_features(2, 3, 8)})
    assert ((after.tokens - before.tokens).abs().amax(-1) > 1e-6).all()


def test_one_input_has_no_crossmodal_part():
    fusion = MulTFusion(inputs=["text"], embed_dim=8, num_heads=2)
    assert not any(name.startswith(("crossmodal", "merge")) for name, _ in fusion.named_parameters())
