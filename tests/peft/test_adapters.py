"""Adapters beside a small BERT: what learns, what they add up to, and on which base they stand."""

import copy
import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig
from safetensors.torch import load_file

from mm.encoders.text.huggingface import HuggingFaceText
from mm.fusion.concat import ConcatFusion
from mm.heads.classification import ClassificationHead
from mm.model import MultimodalModel
from mm.peft import adapters

BERT = {"model_type": "bert", "vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 32, "max_position_embeddings": 64}
ATTENTION = r"encoders\.text\.model\..*\.(query|value)"
KINDS = {
    "lora": lambda **how: LoraConfig(target_modules=ATTENTION, r=2, **how),
    "dora": lambda **how: LoraConfig(target_modules=ATTENTION, r=2, use_dora=True, **how),
    "ia3": lambda **how: IA3Config(target_modules=ATTENTION, feedforward_modules=[], **how),
}
X = torch.randint(1, 257, (6, 10), generator=torch.Generator().manual_seed(0))
INPUTS = {"text": X}, {"text": torch.ones_like(X, dtype=torch.bool)}
TARGET = torch.tensor([0, 1, 0, 1, 0, 1])


def build(seed: int = 0) -> MultimodalModel:
    torch.manual_seed(seed)
    encoder = HuggingFaceText(None, BERT, False, None, None, "attention")
    head = ClassificationHead(classes=["a", "b"], embed_dim=8)
    fusion = ConcatFusion(inputs=["text"], embed_dim=8)
    return MultimodalModel({"text": encoder}, fusion, {"target": head}, 8)


def learn(model: MultimodalModel, steps: int = 5) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        output = model(*INPUTS)
        total, count = model.heads["target"].loss(output.predictions["target"], TARGET, output.fused)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()


def logits(model: MultimodalModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(*INPUTS).predictions["target"].logits


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_pooling_and_what_is_no_encoder_learn(kind):
    model, plain = build(), build()
    assert adapters.attach(model, KINDS[kind]()) == {"encoders.text"}
    torch.testing.assert_close(logits(model), logits(plain))  # an adapter begins with nothing
    learn(model)
    assert (logits(model) - logits(plain)).abs().max() > 0.01
    before = plain.state_dict()
    for name, value in model.state_dict().items():
        bare = name.replace(".base_layer.", ".")
        if bare in before:
            learns = not bare.startswith("encoders.") or bare.startswith("encoders.text.pool.")
            assert torch.equal(value, before[bare]) != learns, name
    some = sum(p.numel() for p in model.encoders["text"].model.parameters() if p.requires_grad)
    assert some == {"lora": 4 * 2 * 2 * 16, "dora": 4 * (2 * 2 * 16 + 16), "ia3": 4 * 16}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_is_a_plain_model_that_gives_the_same(kind):
    model = build()
    adapters.attach(model, KINDS[kind]())
    learn(model)
    wanted, merged = logits(model), copy.deepcopy(model)
    adapters.merge(merged)
    torch.testing.assert_close(logits(merged), wanted, atol=1e-5, rtol=0)
    again = build(seed=1)
    again.load_state_dict(merged.state_dict())  # by the same names
    torch.testing.assert_close(logits(again), wanted, atol=1e-5, rtol=0)


def test_some_weights_of_the_encoder_learn_whole():
    model = build()
    adapters.attach(model, KINDS["lora"](), ["LayerNorm", r"0\.attention\.self\.query\.bias"])
    names = {n for n, p in model.encoders["text"].model.named_parameters() if p.requires_grad and "lora" not in n}
    assert all("LayerNorm" in name or name.endswith("layer.0.attention.self.query.base_layer.bias") for name in names)
    assert len(names) == 2 * 5 + 1


def test_what_was_frozen_before_stays_so():
    model = build()
    model.fusion.requires_grad_(False)
    adapters.attach(model, KINDS["lora"]())
    assert not any(p.requires_grad for p in model.fusion.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_saved_alone_and_loaded_onto_its_base(kind, tmp_path):
    model = build()
    adapters.attach(model, KINDS[kind]())
    learn(model)
    adapters.save(tmp_path / "adapter", model, {"r": 2})
    size = (tmp_path / "adapter/adapter.safetensors").stat().st_size
    assert size < 0.7 * 4 * sum(p.numel() for p in model.parameters())
    again = build()
    adapters.attach(again, KINDS[kind]())
    adapters.load(tmp_path / "adapter", again, {"r": 2})
    torch.testing.assert_close(logits(again), logits(model))
    other = build(seed=1)
    adapters.attach(other, KINDS[kind]())
    before = {name: x.clone() for name, x in other.state_dict().items()}
    with pytest.raises(ValueError, match="was trained beside other weights than this model's"):
        adapters.load(tmp_path / "adapter", other, {"r": 2})
    assert all(torch.equal(x, before[name]) for name, x in other.state_dict().items())


def test_tied_weights_that_do_not_learn_are_in_no_adapter(tmp_path):
    model = torch.nn.ModuleDict({"look": torch.nn.Embedding(50, 8), "tell": torch.nn.Linear(8, 50, bias=False)})
    model["tell"].weight = model["look"].weight  # type: ignore[assignment]
    model.requires_grad_(False)
    model["own"] = torch.nn.Linear(8, 2)
    adapters.save(tmp_path / "adapter", model, {})
    assert set(load_file(tmp_path / "adapter/adapter.safetensors")) == {"own.weight", "own.bias"}
    again = copy.deepcopy(model)
    torch.nn.init.zeros_(again["own"].weight)  # type: ignore[arg-type]
    adapters.load(tmp_path / "adapter", again, {})
    assert torch.equal(again["own"].weight, model["own"].weight)  # type: ignore[arg-type]


def test_no_adapter_beside_a_tied_weight():
    """Merged into one it would change the other."""
    model = build()
    text: Any = model.encoders["text"]
    text.tell = torch.nn.Linear(16, 260, bias=False)
    text.tell.weight = text.model.get_input_embeddings().weight
    with pytest.raises(ValueError, match=r"tell, but .*word_embeddings.weight and .*tell.weight are one weight"):
        adapters.attach(model, LoraConfig(target_modules=r"encoders\.text\.tell"))


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"'.*qeury' is no module's whole name; linear layers are called .*query"):
        adapters.attach(build(), LoraConfig(target_modules=".*qeury"))
    with pytest.raises(ValueError, match="is no regular expression"):
        adapters.attach(build(), LoraConfig(target_modules="(query"))
    with pytest.raises(ValueError, match="peft.config: Target module .* is not supported"):
        adapters.attach(build(), LoraConfig(target_modules=".*LayerNorm"))
    with pytest.raises(ValueError, match="peft.modules_to_save: 'nrom' finds no parameter"):
        adapters.attach(build(), KINDS["lora"](), ["nrom"])
    with pytest.raises(ValueError, match=r"peft.modules_to_save: '\(' is no regular expression"):
        adapters.attach(build(), KINDS["lora"](), ["("])
    with pytest.raises(
        ValueError, match="names no module of an encoder or of a head's language model, only projections.text"
    ):
        adapters.attach(build(), LoraConfig(target_modules=r"projections\..*"))
    with pytest.raises(ValueError, match="peft.config.bias: got 'all'; leave it out"):
        adapters.attach(build(), LoraConfig(target_modules=ATTENTION, bias="all"))
    with pytest.raises(ValueError, match="no adapter at"):
        adapters.load(tmp_path, build(), {})
    model = build()
    adapters.attach(model, KINDS["lora"]())
    adapters.save(tmp_path / "a", model, {})
    with pytest.raises(ValueError, match="which this model lacks"):
        adapters.load(tmp_path / "a", build(), {})
    with pytest.raises(ValueError, match="peft.config.lora_alpha: got 64, but .* has None; use the adapter"):
        adapters.load(tmp_path / "a", model, {"lora_alpha": 64})
    wider = build()
    adapters.attach(wider, LoraConfig(target_modules=ATTENTION, r=4))
    with pytest.raises(ValueError, match=r"is \(2, 16\), here \(4, 16\)"):
        adapters.load(tmp_path / "a", wider, {})


def test_a_scalar_parameter_has_a_digest(tmp_path):
    """As a logit scale is."""
    model = build()
    model.encoders["text"].scale = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
    adapters.attach(model, KINDS["lora"]())
    config = {"r": 2}
    adapters.save(tmp_path / "a", model, config)
    adapters.load(tmp_path / "a", model, config)
    model.encoders["text"].scale.data += 1
    with pytest.raises(ValueError, match="beside other weights"):
        adapters.load(tmp_path / "a", model, config)


def test_parameters_of_no_dimension_have_a_digest_too():
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    model.weight = torch.nn.Parameter(torch.ones(2, 3).T)
    before = adapters.digest(model, ["scale", "weight"])
    wanted = hashlib.sha256(b"scale" + np.float32(1).tobytes() + b"weight" + np.ones(6, np.float32).tobytes())
    assert before == wanted.hexdigest()
    with torch.no_grad():
        model.scale += 1
    assert adapters.digest(model, ["scale", "weight"]) != before


@pytest.mark.parametrize(
    "text", ["", "[1", "[]", "{}", '{"base": 3, "config": {}}', '{"base": {}, "config": 3}', "\xff"]
)
def test_a_damaged_adapter_is_one_message(tmp_path, text):
    (tmp_path / "adapter.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"adapter\.json: is no adapter\.json, or damaged"):
        adapters.load(tmp_path, build(), {})
    good = '{"base": {"names": [], "sha256": "x"}, "config": {}}'
    (tmp_path / "adapter.json").write_text(good, encoding="utf-8")
    (tmp_path / "adapter.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"adapter\.safetensors: is damaged"):
        adapters.load(tmp_path, build(), {})
