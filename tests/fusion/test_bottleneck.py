"""What passes the bottleneck, when, and from whom."""

import pytest
import torch

from mm.contracts import random_features
from mm.fusion.bottleneck import BottleneckFusion

NAMES = ["text", "audio"]
NONE = torch.tensor([False, False])


def outputs(fusion, features) -> list[list[torch.Tensor]]:
    """What each layer gives for each input: class token, tokens, bottlenecks."""
    found = [[torch.empty(0)] * len(fusion.inputs) for _ in fusion.layers]
    handles = [
        block.register_forward_hook(lambda _m, _a, y, number=number, i=i: found[number].__setitem__(i, y))
        for number, layer in enumerate(fusion.layers)
        for i, block in enumerate(layer.blocks)
    ]
    fusion(features)
    for handle in handles:
        handle.remove()
    return found


def test_another_input_is_seen_one_layer_later():
    torch.manual_seed(0)
    fusion = BottleneckFusion(inputs=NAMES, embed_dim=8, num_layers=2, num_heads=2).eval()
    features = {"text": random_features(2, 3, 8), "audio": random_features(2, 4, 8)}
    before = outputs(fusion, features)
    after = outputs(fusion, {**features, "text": random_features(2, 3, 8)})
    assert torch.equal(after[0][1], before[0][1])
    assert not torch.allclose(after[1][1], before[1][1])


def test_the_next_layer_reads_the_mean_over_those_present():
    torch.manual_seed(0)
    fusion = BottleneckFusion(inputs=NAMES, embed_dim=8, num_bottleneck_tokens=2, num_layers=2, num_heads=2).eval()
    there = torch.tensor([True, False])
    features = {"text": random_features(2, 3, 8), "audio": random_features(2, 4, 8, there)}
    read = []
    fusion.layers[1].blocks[0].register_forward_hook(lambda _m, args, _y: read.append(args[0]))
    text, audio = outputs(fusion, features)[0]
    wanted = torch.stack([(text[0, -2:] + audio[0, -2:]) / 2, text[1, -2:]])
    torch.testing.assert_close(read[0][:, -2:], wanted)


def test_beside_an_absent_input_an_input_is_as_if_alone():
    torch.manual_seed(0)
    fusion = BottleneckFusion(inputs=NAMES, embed_dim=8, num_layers=3, num_heads=2).eval()
    alone = BottleneckFusion(inputs=["text"], embed_dim=8, num_layers=3, num_heads=2).eval()
    both = fusion.state_dict()
    own = {name: both[name] for name in alone.state_dict()}  # the first input's parts have the same names
    own["class_token"], own["embedding.kind"] = both["class_token"][:1], both["embedding.kind"][:1]
    alone.load_state_dict(own)
    text = random_features(2, 3, 8)
    fused, wanted = fusion({"text": text, "audio": random_features(2, 4, 8, NONE)}), alone({"text": text})
    torch.testing.assert_close(fused.pooled, wanted.pooled)
    torch.testing.assert_close(fused.tokens[:, :3], wanted.tokens)


def test_one_layer_would_exchange_nothing():
    with pytest.raises(ValueError, match="model.fusion.num_layers: got 1, wanted 2 or more"):
        BottleneckFusion(inputs=NAMES, embed_dim=8, num_layers=1)
