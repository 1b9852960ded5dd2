import pytest
import torch

from mm.encoders.audio.conv import AudioConv
from mm.encoders.audio.log_mel import LogMel


def build(strides: tuple[int, ...] = (2, 2, 1), pool: str = "mean", masks: int = 0) -> AudioConv:
    torch.manual_seed(0)
    frontend = LogMel(8000, 40, 0.025, 0.010, time_masks=masks, time_width=8, freq_masks=masks, freq_width=6)
    return AudioConv(frontend, embed_dim=16, widths=[8, 8, 12], strides=strides, pool=pool)


def test_contract(contract, audio_batch):
    contract(build(), *audio_batch)


@pytest.mark.parametrize("length", [1, 1500, 1599, 1600, 1601, 1677])
def test_padding(padding, length):
    padding(build(), torch.randn(1, 2400), length, garbage=3.0)


@pytest.mark.parametrize("pool", ["first", "last", "max", "attention"])
def test_padding_of_pools(padding, pool):
    padding(build(pool=pool), torch.randn(1, 2400), 1500)


def test_tokens_are_a_stride_of_frames(audio_batch):
    assert build(strides=(1, 1, 1))(*audio_batch).mask.sum(1).tolist() == [31, 19, 0]  # length // 80 + 1
    assert build(strides=(2, 2, 1))(*audio_batch).mask.sum(1).tolist() == [8, 5, 0]  # a quarter, rounded up


def test_spectrogram_masking_compiles(audio_batch):
    encoder = torch.compile(build(masks=1).train(), fullgraph=True, backend="eager")
    assert encoder(*audio_batch).tokens.isfinite().all()


def test_mistakes():
    with pytest.raises(ValueError, match="strides: got 2 for 3 widths"):
        build(strides=(2, 2))
