"""The loss beside torch's, one token after the other, and encoders that see what is to come."""

import pytest
import torch
import torch.nn.functional as F

from mm.encoders.text.huggingface import HuggingFaceText
from mm.encoders.text.recurrent import TextRecurrent
from mm.encoders.text.transformer import TextTransformer
from mm.fusion.sum import SumFusion
from mm.model import MultimodalModel
from mm.tasks.objectives.causal_lm import CausalLMObjective
from mm.tasks.pretraining import Pretraining
from mm.types import Batch

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 257}
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 8, "vocab_size": 257}


def transformer(causal: bool) -> TextTransformer:
    return TextTransformer(8, 2, 2, 0.0, None, "mean", causal=causal)


def recurrent(both: bool) -> TextRecurrent:
    return TextRecurrent(8, 1, "gru", both, 0.0, None, "mean")


def huggingface(config: dict) -> HuggingFaceText:
    return HuggingFaceText(None, config, True, "bytes", None, "mean")


def model(encoder) -> MultimodalModel:
    return MultimodalModel({"text": encoder}, SumFusion(inputs=["text"]), {}, 8)


@pytest.mark.parametrize(
    "encoder", [transformer(True), recurrent(False), huggingface(GPT2)], ids=["transformer", "recurrent", "gpt2"]
)
def test_loss_is_of_each_token_after_those_before(encoder):
    made = Pretraining(model(encoder), objectives={"next": CausalLMObjective}).requires_grad_(False).eval()
    x = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0], [0, 0, 0, 0], [11, 0, 0, 0]])
    batch = Batch({"text": x}, {"text": x > 0}, {}, torch.arange(4), {})
    ((total, count),) = made.measure(batch, None).values()
    decoder, wanted = made.objectives["next"].decoders["text"], 0.0
    for ids in ([5, 6, 7, 8], [9, 10]):
        for i in range(1, len(ids)):
            before = torch.tensor([ids[:i]])
            last = made.model.encode({"text": before}, {"text": before > 0})["text"].tokens[0, -1]
            logits = decoder.mlp(last) @ encoder.token_embedding.weight.T + decoder.bias
            wanted += float(F.cross_entropy(logits, torch.tensor(ids[i])))
    assert float(total) == pytest.approx(wanted, rel=1e-4)
    assert int(count) == 4


@pytest.mark.parametrize("encoder", [transformer(False), recurrent(True), huggingface(BERT)])
def test_what_sees_the_future_is_refused(encoder):
    with pytest.raises(ValueError, match=r"sees those to come; set model.encoders.text.causal=true"):
        CausalLMObjective(model(encoder))
