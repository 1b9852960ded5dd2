import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mm.encoders.text.recurrent import TextRecurrent


def build(cell: str = "lstm", bidirectional: bool = True, layers: int = 2) -> TextRecurrent:
    torch.manual_seed(0)
    return TextRecurrent(16, layers, cell, bidirectional, dropout=0.0, max_length=None, pool="mean")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_contract(contract, text_batch, cell):
    try:
        with torch._dynamo.config.patch(allow_rnn=True):
            contract(build(cell), *text_batch)
    except RuntimeError as error:
        if "primitive descriptor for the LSTM" not in str(error):
            raise
        pytest.skip("oneDNN has no LSTM for this processor")


@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding(padding, bidirectional):
    padding(build(bidirectional=bidirectional), torch.randint(1, 257, (1, 20)), 11, garbage=77)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_equals_a_packed_sequence(cell, text_batch):
    ids, mask = (t[:2] for t in text_batch)
    encoder = build(cell).eval()
    wanted = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](16, 8, num_layers=2, bidirectional=True, batch_first=True)
    for layer in range(2):
        for ours, suffix in [(encoder.ahead[layer], ""), (encoder.back[layer], "_reverse")]:
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(wanted, f"{kind}_l{layer}{suffix}").data = getattr(ours, f"{kind}_l0").data
    packed = pack_padded_sequence(encoder.embed(ids), mask.sum(1), batch_first=True)
    tokens, _ = pad_packed_sequence(wanted(packed)[0], batch_first=True)
    torch.testing.assert_close(encoder(ids, mask).tokens[mask], tokens[mask])


def test_mistakes():
    with pytest.raises(ValueError, match="cell: got 'rnn'"):
        build("rnn")
    with pytest.raises(ValueError, match="embed_dim: got 15"):
        TextRecurrent(15, 1, "gru", True, 0.0, None, "mean")
