import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import pytest
import torch
import yaml
from transformers import AutoModel, ViTImageProcessor

from mm.encoders.vision.huggingface import HuggingFaceVision, split_grid

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_channels": 1, "image_size": 16}
CONFIGS = {
    "vit": {"model_type": "vit", "patch_size": 4, **SMALL},
    "dinov2": {"model_type": "dinov2", "patch_size": 4, "mlp_ratio": 2, **SMALL},
    "resnet": {"model_type": "resnet", "num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16]}
    | {"depths": [1, 1], "layer_type": "basic"},
}


def build(**arguments) -> HuggingFaceVision:
    torch.manual_seed(0)
    defaults = {"pretrained": None, "config": None, "random_init": False, "mean": None, "std": None, "pool": "mean"}
    return HuggingFaceVision(**(defaults | arguments))


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[True], [True], [False]])
    return torch.randn(3, 1, size, size) * mask[:, :, None, None], mask


@pytest.mark.parametrize("kind", CONFIGS)
def test_contract(contract, kind):
    contract(build(config=CONFIGS[kind]), *batch())


def test_equals_a_saved_model_and_reads_its_processor(tmp_path):
    source = build(config=CONFIGS["vit"])
    source.model.save_pretrained(tmp_path)
    ViTImageProcessor(image_mean=[0.3], image_std=[0.2]).save_pretrained(tmp_path)
    encoder = build(pretrained=str(tmp_path)).eval()
    x, mask = batch()
    wanted = AutoModel.from_pretrained(tmp_path).eval()(x).last_hidden_state
    torch.testing.assert_close(encoder(x, mask).tokens, wanted)
    assert encoder.input.size == (16, 16) and encoder.input.channels == 1 and encoder.input.mean == (0.3,)
    again = build(**yaml.safe_load(yaml.safe_dump(encoder.architecture))).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x, mask).tokens, wanted)
    assert again.input == encoder.input


@pytest.mark.parametrize(
    ("tokens", "size", "wanted"),
    [
        (197, (224, 224), (1, 14, 14)),
        (49, (224, 224), (0, 7, 7)),
        (261, (224, 224), (5, 16, 16)),
        (9, (32, 64), (1, 2, 4)),
    ],
)
def test_split_grid(tokens, size, wanted):
    assert split_grid(tokens, *size) == wanted


def test_mistakes():
    with pytest.raises(ValueError, match=r"set model.encoders.vision.pretrained=FOLDER"):
        build()
