"""Every yaml under conf/model is built as the cli builds it, and keeps the contracts of mm/contracts/."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import conf
from mm import checkpoint
from mm.assembly.finish import fill
from mm.configurable import to_config
from mm.contracts import check_encoder, check_fusion, check_head, examples, random_features
from mm.encoders.text.hashed_ngrams import TextHashedNgrams
from mm.fusion.sum import SumFusion
from mm.heads.classification import ClassificationHead
from mm.layers import masked_mean, time_position
from mm.peft import adapters
from mm.predictions import Categorical
from mm.types import DataSpec, Features, InputData, InputSpec, TargetData

MODEL = Path(conf.__file__).parent / "model"
WIDTH = 32
NAMES = ["text", "vision", "audio"]
DATA = {"channels": 3, "size": [32, 32], "sample_rate": 8000, "cardinalities": [0, 5, 9, 0, 3]}

BERT = {"model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 37, "max_position_embeddings": 40}
VIT = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VIT |= {"intermediate_size": 37, "image_size": 32, "patch_size": 8, "num_channels": 3}
WAV2VEC2 = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WAV2VEC2 |= {"intermediate_size": 37, "conv_dim": [32, 32], "conv_kernel": [8, 8], "conv_stride": [4, 4]}
WAV2VEC2 |= {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WAV2VEC2 |= {"do_stable_layer_norm": True}
WHISPER = {"model_type": "whisper", "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2}
WHISPER |= {"encoder_ffn_dim": 37, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 37}
WHISPER |= {"vocab_size": 50, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
AST = {"model_type": "audio-spectrogram-transformer", "hidden_size": 32, "num_hidden_layers": 1}
AST |= {"num_attention_heads": 2, "intermediate_size": 37, "max_length": 128, "num_mel_bins": 128}

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2}

# Overrides of a yaml: what it can't be built without, or what keeps it small; several make several cases.
VARIANTS = {
    "text/huggingface": {"bert": {"config": BERT}, "roberta": {"config": BERT | {"model_type": "roberta"}}},
    "vision/huggingface": {"vit": {"config": VIT}},
    "vision/timm": {"resnet10t": {"name": "resnet10t"}, "vit": {"name": "test_vit"}},
    "audio/huggingface": {
        "wav2vec2": {"config": WAV2VEC2},
        "wav2vec2_group_norm": {"config": WAV2VEC2 | {"feat_extract_norm": "group", "do_stable_layer_norm": False}},
        "hubert": {"config": WAV2VEC2 | {"model_type": "hubert"}},
        "whisper": {"config": WHISPER},
        "ast": {"config": AST},
    },
    "sum": {reduce: {"reduce": reduce} for reduce in ("sum", "mean", "max")} | {"anchor": {"anchor": "text"}},
    "product_of_experts": {"mean": {}, "stochastic": {"stochastic": True}},
    "causal_lm": {"llama": {"config": LLAMA}},
    "tabular/mlp": {pool: {"pool": pool} for pool in ("concat", "mean", "attention")}
    | {"numbers": {"cardinalities": [0, 0]}, "categories": {"cardinalities": [4], "num_layers": 0, "pool": "mean"}},
    "tabular/transformer": {"": {}, "mean": {"pool": "mean", "positions": False}, "list": {"cardinalities": [40]}},
}
# (case, check) that can't hold, and why. A check that passes nevertheless is an error.
IMPOSSIBLE = {
    ("audio/huggingface-wav2vec2_group_norm", "padding"): "group norm takes its statistics over padding",
    (
        "text/recurrent",
        "compile",
    ): "torch breaks the graph at its GRU and LSTM (dynamo.config.allow_rnn is experimental)",
}


def cases(room: str) -> list:
    """(case, yaml, overrides) of every yaml below a folder."""
    found = []
    for file in sorted((MODEL / room).glob("**/*.yaml")):
        name = str(file.relative_to(MODEL / room).with_suffix(""))
        if "paths.data" in file.read_text(encoding="utf-8"):
            continue  # weights of a folder of the user's, read by experiments with MM_DATA
        for variant, overrides in VARIANTS.get(name, {"": {}}).items():
            case = "-".join(filter(None, [name, variant]))
            found.append(pytest.param(case, file, overrides, id=case))
    return found


def build(file: Path, overrides: dict, **data) -> nn.Module:
    """The module of a yaml, with every `???` filled as from data."""
    cfg = OmegaConf.create({"model": {"embed_dim": WIDTH, "part": OmegaConf.load(file)}})
    node = OmegaConf.merge(cfg.model.part, overrides)
    cfg.model.part = node
    fill(cfg, DATA | data)
    for name in ("metrics", "target_codec"):
        cfg.model.part.pop(name, None)
    torch.manual_seed(0)
    return instantiate(cfg.model.part, _convert_="all")


def judge(case: str, results: list) -> None:
    """Fail with all messages at once; what is IMPOSSIBLE has to fail."""
    impossible = {check for name, check in IMPOSSIBLE if name == case}
    failed = {check: message for check, message in results if message is not None}
    passed = impossible - set(failed)
    assert not passed, f"{case}: passes {passed}: take it out of IMPOSSIBLE"
    unexpected = {check: message for check, message in failed.items() if check not in impossible}
    assert not unexpected, f"{case}: {unexpected}"


@pytest.mark.parametrize(("case", "file", "overrides"), cases("encoders"))
def test_encoder(case, file, overrides):
    encoder = build(file, overrides)
    assert encoder.input.modality == case.split("/")[0]
    judge(case, check_encoder(encoder))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("case", "file", "overrides"), cases("fusion"))
def test_fusion(case, file, overrides, count):
    judge(case, check_fusion(build(file, overrides, inputs=NAMES[:count]), NAMES[:count], WIDTH))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("case", "file", "overrides"), cases("fusion"))
def test_pooled_reaches_every_parameter_of_a_fusion(case, file, overrides, count):
    """A head that reads the pooled vector alone leaves none for DDP to wait for, also where a batch lacks an input."""
    fusion = build(file, overrides, inputs=NAMES[:count]).train()
    nobody = torch.zeros(4, dtype=torch.bool)
    features = {n: random_features(4, 3, WIDTH, nobody if i else None) for i, n in enumerate(NAMES[:count])}
    pooled = fusion(features).pooled
    if list(fusion.parameters()):
        pooled.sum().backward()
    assert not [name for name, p in fusion.named_parameters() if p.grad is None]


@pytest.mark.parametrize(("case", "file", "overrides"), cases("heads"))
def test_head(case, file, overrides, tmp_path):
    node = OmegaConf.load(file)["target_codec"]
    own = {"input": "text", "folder": str(tmp_path)}
    reads = instantiate(node, **{key: value for key, value in own.items() if key in node})
    known = examples(reads).data
    judge(case, check_head(build(file, overrides, classes=list(known.classes), **known.facts), reads, WIDTH))


class Careless(nn.Module):
    """Breaks what the checks look for: forgets the mask, keeps an unused layer, branches on values."""

    embed_dim = 8
    input = InputSpec(modality="text", tokenizer="bytes")

    def __init__(self, **faults: bool):
        super().__init__()
        self.faults = faults
        self.table = nn.Embedding(257, 8)
        self.unused = nn.Linear(2, 2) if faults.get("gradients") else None

    def forward(self, x, mask):
        tokens = self.table(x)
        if self.faults.get("compile") and tokens.sum() > 0:
            tokens = -tokens
        pooled = masked_mean(tokens, mask)
        if self.faults.get("padding"):
            pooled = tokens.mean(1) * mask.any(1, keepdim=True)
        if self.faults.get("absence"):
            pooled = pooled + 1
        position = time_position(mask) * (2 if self.faults.get("shapes") else 1)
        return Features(tokens, mask, pooled, position)


@pytest.mark.parametrize("fault", ["", "shapes", "padding", "absence", "gradients", "compile"])
def test_checks_find_what_is_broken(fault):
    failed = {check for check, message in check_encoder(Careless(**{fault: True})) if message is not None}
    assert fault in failed if fault else not failed


class Attributes(nn.Module):
    """Has attributes whose names mean something to `mm` on classes of its own, and a parameter without dimensions."""

    def add_attributes(self) -> None:
        self.architecture = "two towers"
        self.identity = 3
        self.names = ["a", "b"]
        self.reset_parameters = "at the start of each epoch"
        self.scale = nn.Parameter(torch.tensor(1.5))


class AttributesEncoder(TextHashedNgrams, Attributes):
    def __init__(self, embed_dim: int):
        super().__init__(embed_dim, ngram=2, num_hash_buckets=64, dropout=0.0, max_length=32, pool="mean")
        self.add_attributes()

    def forward(self, x, mask):
        features = super().forward(x, mask)
        return features._replace(tokens=features.tokens * self.scale, pooled=features.pooled * self.scale)


class AttributesFusion(SumFusion, Attributes):
    def __init__(self, inputs: list[str]):
        super().__init__(inputs=inputs)
        self.add_attributes()

    def forward(self, features):
        fused = super().forward(features)
        return fused._replace(tokens=fused.tokens * self.scale, pooled=fused.pooled * self.scale)


class AttributesHead(ClassificationHead, Attributes):
    def __init__(self, classes: list[str], embed_dim: int):
        super().__init__(classes=classes, embed_dim=embed_dim)
        self.add_attributes()

    def forward(self, fused, target=None):
        return Categorical(super().forward(fused, target).logits * self.scale)


def test_attributes_of_ones_own_parts_are_left_alone(tmp_path):
    """Parts keep the contracts, are saved and loaded, whatever their attributes are called."""
    package = __name__.split(".")[0]
    config = {
        "_target_": "mm.model.MultimodalModel",
        "encoders": {"text": {"_target_": f"{__name__}.AttributesEncoder", "embed_dim": 8}},
        "fusion": {"_target_": f"{__name__}.AttributesFusion", "inputs": ["text"]},
        "heads": {"label": {"_target_": f"{__name__}.AttributesHead", "classes": ["a", "b"], "embed_dim": 8}},
        "embed_dim": 8,
    }
    transforms = {"text": {"_target_": "mm.transforms.text.tokens.TextTransform", "tokenizer": "bytes"}}
    readers = {"label": {"_target_": "mm.targets.classes.ClassTarget"}}
    data = TargetData(kind="class", classes=("a", "b"))
    spec = DataSpec(inputs={"text": InputData(modality="text")}, targets={"label": data})
    torch.manual_seed(0)
    model = checkpoint.build(config, [package]).eval()
    judge("encoder", check_encoder(model.encoders["text"]))
    judge("fusion", check_fusion(AttributesFusion(NAMES[:2]), NAMES[:2], WIDTH))
    classes = instantiate({"_target_": "mm.targets.classes.ClassTarget"})
    judge("head", check_head(AttributesHead(list(examples(classes).data.classes), WIDTH), classes, WIDTH))
    for part in (model.encoders["text"], model.fusion, model.heads["label"]):
        part.scale.data *= 2
    checkpoint.save(tmp_path / "model", model, checkpoint.build(transforms), checkpoint.build(readers), spec)
    loaded = checkpoint.load(tmp_path / "model", allow=[package])
    saved = to_config(loaded.model)
    assert saved["encoders"] == config["encoders"]
    assert saved["fusion"] == config["fusion"]
    for name, x in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], x), name
    assert loaded.model.fusion.reset_parameters == "at the start of each epoch"
    assert loaded.predict({"text": "abc"})["label"]["prediction"] in ("a", "b")
    names = [name for name, _ in model.named_parameters()]
    assert adapters.digest(loaded.model, names) == adapters.digest(model, names)
