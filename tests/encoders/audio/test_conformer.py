import pytest
import torch

from mm.encoders.audio.conformer import AudioConformer
from mm.encoders.audio.log_mel import LogMel


def build(kernel: int = 5) -> AudioConformer:
    torch.manual_seed(0)
    frontend = LogMel(8000, 40, 0.025, 0.010, time_masks=0, time_width=0, freq_masks=0, freq_width=0)
    return AudioConformer(
        frontend, embed_dim=16, num_layers=2, num_heads=2, kernel=kernel, stem=4, dropout=0.0, pool="mean"
    )


def test_contract(contract, audio_batch):
    contract(build(), *audio_batch)


@pytest.mark.parametrize("length", [1, 1500, 1600, 1677])
def test_padding(padding, length):
    padding(build(), torch.randn(1, 2400), length, garbage=3.0)


def test_a_kernel_reaches_half_its_width():
    block = build(kernel=5).blocks[0].convolution
    x = torch.randn(1, 20, 16)
    other = x.clone()
    other[:, 10] += torch.randn(16)
    mask = torch.ones(1, 20, dtype=torch.bool)
    change = (block(x, mask) - block(other, mask)).abs().amax((0, 2)) > 0
    assert change.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


def test_mistakes():
    with pytest.raises(ValueError, match="kernel: got 4, wanted an odd number"):
        build(kernel=4)
