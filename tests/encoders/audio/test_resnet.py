import pytest
import torch

from mm.contracts.encoder import check_encoder
from mm.encoders.audio.log_mel import LogMel
from mm.encoders.audio.resnet import AudioResNet


def build(statistics: int = 0, stem_stride: tuple[int, ...] = (4, 2)) -> AudioResNet:
    torch.manual_seed(0)
    frontend = LogMel(8000, 40, time_masks=0, freq_masks=0)
    return AudioResNet(frontend, widths=(8, 16), statistics=statistics, stem_stride=stem_stride, dropout=0.0)


@pytest.mark.parametrize("statistics", [0, 8])
def test_contract(contract, audio_batch, statistics, monkeypatch):
    monkeypatch.setattr("mm.encoders.audio.resnet.STATISTICS_DROPOUT", 0.0)  # two passes are compared in training
    contract(build(statistics), *audio_batch)


@pytest.mark.parametrize("statistics", [0, 8])
@pytest.mark.parametrize("length", [1, 1500, 1599, 1600, 1601, 1677])
def test_padding(padding, length, statistics):
    padding(build(statistics), torch.randn(1, 2400), length, garbage=3.0)


def test_what_mm_check_demands():
    assert [(name, why) for name, why in check_encoder(build(8)) if why] == []


def test_tokens_are_a_stride_of_frames(audio_batch):
    assert build()(*audio_batch).mask.sum(1).tolist() == [8, 5, 0]  # 31 and 19 frames: a quarter, rounded up
    assert build(stem_stride=(4, 4))(*audio_batch).mask.sum(1).tolist() == [4, 3, 0]


def test_padding_does_not_change_running_statistics():
    x = torch.randn(4, 2400) * 0.1
    mask = torch.arange(2400)[None] < torch.tensor([[1600], [1600], [1600], [1600]])
    short, long = build(8).train(), build(8).train()
    short(x[:, :1600], mask[:, :1600])
    long(x, mask)
    for (name, a), b in zip(short.named_buffers(), long.buffers()):
        torch.testing.assert_close(a, b, msg=name)


def test_mistakes():
    with pytest.raises(ValueError, match=r"stem_stride: got \[4\]"):
        build(stem_stride=(4,))
