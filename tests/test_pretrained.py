"""Messages while pre-trained weights are loaded."""

import logging

import pytest
import torch
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel

from mm.pretrained import load_pretrained

SMALL = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture
def folder(tmp_path):
    BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def heard(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def test_weights_of_the_file_without_a_place_are_no_news(folder, heard):
    BertModel.from_pretrained(folder, add_pooling_layer=False)
    assert any("LOAD REPORT" in message for message in heard.messages)  # of transformers, called directly
    heard.clear()
    model = load_pretrained(AutoModel, folder, add_pooling_layer=False)
    assert isinstance(model, BertModel)
    assert heard.messages == []
    wanted = BertForMaskedLM.from_pretrained(folder).bert.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_weights_that_start_at_random_are_one_line(folder, heard):
    load_pretrained(AutoModel, folder)  # the pooling layer is not in the file
    (message,) = heard.messages
    assert message == (
        f"{folder}: has no value for 2 weights of BertModel, which start at random, the first: pooler.dense.bias"
    )


def test_an_error_comes_with_the_table_that_it_refers_to(folder, heard):
    with pytest.raises(RuntimeError):
        load_pretrained(AutoModel, folder, config=BertConfig(**SMALL | {"hidden_size": 4}), add_pooling_layer=False)
    assert any("LOAD REPORT" in message for message in heard.messages)
