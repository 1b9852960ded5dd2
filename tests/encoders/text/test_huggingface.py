import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer

from mm.encoders.text.huggingface import HuggingFaceText

SMALL = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS = {
    "bert": {"model_type": "bert", "max_position_embeddings": 64, **SMALL},
    "roberta": {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1, **SMALL},
    "distilbert": {"model_type": "distilbert", "vocab_size": 260, "dim": 16, "n_layers": 2, "n_heads": 2}
    | {"hidden_dim": 32, "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0},
    "t5": {"model_type": "t5", "vocab_size": 260, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}
    | {"num_heads": 2, "dropout_rate": 0.0},
    "gpt2": {"model_type": "gpt2", "vocab_size": 260, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 1},
}


def build(**arguments) -> HuggingFaceText:
    torch.manual_seed(0)
    defaults = {"pretrained": None, "config": None, "random_init": False, "tokenizer": None, "max_length": None}
    return HuggingFaceText(**(defaults | {"pool": "mean"} | arguments))


@pytest.mark.parametrize("kind", CONFIGS)
def test_contract(contract, padding, text_batch, kind):
    encoder = build(config=CONFIGS[kind])
    contract(encoder, *text_batch)
    padding(encoder, torch.randint(2, 257, (1, 20)), 11, garbage=77)


@pytest.mark.parametrize(("kind", "wanted"), [("bert", 64), ("roberta", 64), ("gpt2", 64), ("t5", None)])
def test_max_length_is_what_the_positions_allow(kind, wanted):
    encoder = build(config=CONFIGS[kind])
    assert encoder.input.max_length == wanted
    ids = torch.full((1, wanted or 100), 5)
    assert encoder(ids, ids.bool()).tokens.isfinite().all()


def test_equals_the_model_on_unpadded_sentences(minilm):
    sentences = ["A short one.", "Colourless green ideas sleep furiously, they say, and so do we."]
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    encoder = build(pretrained=minilm).eval()
    ours = encoder(batch["input_ids"], batch["attention_mask"].bool())
    model = AutoModel.from_pretrained(minilm).eval()
    for i, sentence in enumerate(sentences):
        wanted = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(ours.tokens[i, : len(wanted)], wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.pooled[i], wanted.mean(0), atol=1e-5, rtol=1e-4)
    assert encoder.input.tokenizer == minilm and encoder.input.max_length == 512
    fresh = build(pretrained=minilm, random_init=True)
    assert (fresh.model.embeddings.word_embeddings.weight - model.embeddings.word_embeddings.weight).abs().max() > 0.01


def test_an_absent_row_attends_to_one_token(text_batch):
    encoder = build(config=CONFIGS["bert"])
    seen = []
    encoder.model.register_forward_pre_hook(lambda _, __, given: seen.append(given["attention_mask"]), with_kwargs=True)
    encoder(*text_batch)
    assert seen[0].sum(1).tolist() == [12, 7, 1]


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_is_rebuilt_from_plain_data(kind, text_batch):
    encoder = build(config=CONFIGS[kind]).eval()
    architecture = yaml.safe_load(yaml.safe_dump(encoder.architecture))
    again = build(**architecture).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(*text_batch).pooled, encoder(*text_batch).pooled)
    assert again.input == encoder.input


def test_mistakes():
    with pytest.raises(ValueError, match=r"neither.*set model.encoders.text.pretrained=FOLDER"):
        build()
    with pytest.raises(ValueError, match="got both"):
        build(pretrained="x", config=CONFIGS["bert"])
    with pytest.raises(ValueError, match="max_length: got 65"):
        build(config=CONFIGS["bert"], max_length=65)


MARKERS = ["<a>", "<b>"]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_markers_contract(contract, kind, tokenizer):
    encoder = build(config=CONFIGS[kind], tokenizer=tokenizer, marker_tokens=MARKERS, pool="markers")
    assert encoder.input.marker_tokens == {"<a>": 260, "<b>": 261}
    x = torch.randint(1, 257, (3, 12))
    x[:, 2], x[:, 6] = 260, 261
    mask = torch.arange(12) < torch.tensor([[12], [7], [0]])
    contract(encoder, x * mask, mask)


def test_pooled_at_the_markers(tokenizer):
    encoder = build(config=CONFIGS["bert"], tokenizer=tokenizer, marker_tokens=MARKERS, pool="markers").eval()
    x = torch.tensor([[5, 260, 6, 261, 7, 260], [260, 5, 6, 0, 0, 0]])
    found = encoder(x, x > 0)
    both = torch.cat([found.tokens[0, 1], found.tokens[0, 3]])
    torch.testing.assert_close(found.pooled[0], encoder.pool.linear(both))
    lacks = torch.cat([found.tokens[1, 0], torch.zeros(16)])
    torch.testing.assert_close(found.pooled[1], encoder.pool.linear(lacks))
    again = build(**encoder.architecture, marker_tokens=MARKERS, pool="markers").eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x, x > 0).pooled, found.pooled)


def test_mistakes_with_markers(tokenizer):
    bert = CONFIGS["bert"]
    with pytest.raises(ValueError, match="pool=markers: got no marker tokens"):
        build(config=bert, tokenizer=tokenizer, pool="markers")
    with pytest.raises(ValueError, match="marker_tokens: bytes have none"):
        build(config=bert, marker_tokens=MARKERS)
    with pytest.raises(ValueError, match="wanted different strings"):
        build(config=bert, tokenizer=tokenizer, marker_tokens=["<a>", "<a>"])
