import pytest
import timm
import torch

from mm.encoders.vision.timm import TimmVision


def build(name: str, **arguments) -> TimmVision:
    torch.manual_seed(0)
    defaults = {"pretrained": False, "channels": 3, "size": [64, 64], "mean": None, "std": None, "pool": "mean"}
    return TimmVision(name, **(defaults | arguments))


def batch(channels: int = 3, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[True], [True], [False]])
    return torch.randn(3, channels, size, size) * mask[:, :, None, None], mask


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_contract(contract, name):
    contract(build(name), *batch())


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_efficientnet", "edgenext_xx_small", "levit_128s"])
def test_every_parameter_is_used(name):
    encoder = build(name, channels=1)
    out = encoder(*batch(1))
    assert out.tokens.shape[2] == encoder.embed_dim
    out.pooled.sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_equals_timms_own_tokens():
    encoder = build("test_vit").eval()
    x, mask = batch()
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    model.load_state_dict(encoder.model.state_dict(), strict=False)
    torch.testing.assert_close(encoder(x, mask).tokens, model.forward_features(x), atol=1e-5, rtol=1e-4)
    assert encoder.prefix == 1 and (encoder(x, mask).position[:, 0] == 0.5).all()


def test_weights_from_a_file_bring_their_size_and_mean(tmp_path):
    source = timm.create_model("test_vit")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    encoder = build("test_vit", pretrained=str(tmp_path / "weights.pth"), channels=1, size=[8, 8])
    assert encoder.input.size == (160, 160) and len(encoder.input.mean) == 1
    block = "blocks.0.mlp.fc1.weight"
    torch.testing.assert_close(encoder.model.state_dict()[block], source.state_dict()[block])
    again = build("test_vit", channels=1, **encoder.architecture)
    again.load_state_dict(encoder.state_dict())
    assert again.input == encoder.input


def test_mistakes():
    with pytest.raises(ValueError, match=r"got 'resnet19', wanted a timm model"):
        build("resnet19")
