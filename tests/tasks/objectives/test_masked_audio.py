"""What is silenced has no influence, nor has padding; what counts is the spectrogram of what was silenced."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchaudio.functional import melscale_fbanks

from mm.encoders.audio.conv import AudioConv
from mm.encoders.audio.huggingface import HuggingFaceAudio
from mm.encoders.audio.log_mel import LogMel
from mm.fusion.sum import SumFusion
from mm.model import MultimodalModel
from mm.tasks.objectives.masked_audio import MaskedAudioObjective
from mm.tasks.pretraining import Pretraining
from mm.types import Batch

RATE, SPAN = 8000, 400  # samples of a second and of a span
LENGTHS = (2100, 1700, 0, 700)  # five spans and a rest, four and a rest, no clip, one and a rest
X = torch.randn(4, 2100, generator=torch.Generator().manual_seed(0))
X *= torch.linspace(0.1, 1, 2100)
MASK = torch.arange(2100) < torch.tensor(LENGTHS)[:, None]


def conv() -> AudioConv:
    return AudioConv(LogMel(RATE, 40, 0.025, 0.01, 0, 0, 0, 0), 8, [8, 8], [2, 2], "mean")


def task(encoder=None, **how) -> Pretraining:
    torch.manual_seed(0)
    model = MultimodalModel({"audio": encoder or conv()}, SumFusion(inputs=["audio"]), {}, 8)
    return Pretraining(
        model, objectives={"sound": partial(MaskedAudioObjective, **({"span_seconds": 0.05, "ratio": 0.5} | how))}
    )


def batch(x: torch.Tensor = X, mask: torch.Tensor = MASK) -> Batch:
    return Batch({"audio": x * mask}, {"audio": mask}, {}, torch.arange(len(x)), {})


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def hidden(made: Pretraining, b: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    shown, spans = made.objectives["sound"].corrupt(b, drawn())["audio"]
    return shown, spans


def test_silences_its_part_of_whole_spans():
    shown, spans = hidden(task(), batch())
    assert spans.shape == (4, 5)
    assert spans.sum(1).tolist() == [2, 2, 0, 0]  # half of five, half of four, none of no clip, none of one alone
    assert not spans[1, 4]  # of which a part is padding
    silent = spans.repeat_interleave(SPAN, 1)
    assert not shown[:, :2000][silent].any()
    assert torch.equal(shown[:, :2000][~silent], batch().inputs["audio"][:, :2000][~silent])


def spectrogram(x: np.ndarray) -> np.ndarray:
    """Log-mel of one clip without padding, by numpy; (frames, bands) of mean 0 and deviation 1."""
    window = np.pad(np.hanning(201)[:200], 28)
    padded = np.pad(x, 128)
    frames = np.stack([padded[80 * i : 80 * i + 256] for i in range(len(x) // 80)])
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = np.log(power @ melscale_fbanks(129, 0.0, RATE / 2, 40, RATE).numpy() + 1e-6)
    return (mel - mel.mean()) / mel.std()


def test_counts_the_spectrogram_of_hidden_spans():
    """A decoder that says nothing but zeros is wrong by what the spans hold."""
    made = task().requires_grad_(False)
    for parameter in made.objectives["sound"].decoders["audio"].mlp[2].parameters():
        parameter.data.zero_()
    _, spans = hidden(made, batch())
    wanted = 0.0
    for row in (0, 1):
        mel = spectrogram(X[row, : LENGTHS[row]].double().numpy())
        for span in spans[row].nonzero().flatten().tolist():
            wanted += np.abs(mel[5 * span : 5 * span + 5]).mean()
    ((total, count),) = made.measure(batch(), drawn()).values()
    assert float(total) == pytest.approx(wanted, rel=1e-3)
    assert int(count) == 4


@pytest.mark.parametrize("kind", ["conv", "wav2vec2"])
def test_what_is_silenced_has_no_influence(kind):
    config = {"model_type": "wav2vec2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 8, "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2]}
    config |= {"num_feat_extract_layers": 2, "feat_extract_norm": "layer", "num_conv_pos_embeddings": 4}
    config |= {"num_conv_pos_embedding_groups": 2, "vocab_size": 8}
    made = task(
        conv() if kind == "conv" else HuggingFaceAudio(None, config, True, None, "mean"), span_seconds=0.02
    ).eval()
    _, spans = hidden(made, batch())
    size = made.objectives["sound"].spans("audio", batch())[0]
    away = spans.repeat_interleave(size, 1)
    away = F.pad(away, (0, X.shape[1] - away.shape[1]))
    seen = []
    made.objectives["sound"].decoders["audio"].register_forward_hook(lambda _, __, told: seen.append(told))
    noise = torch.randn(X.shape, generator=drawn())
    for x in (X, torch.where(away, noise, X), torch.where(away, X, noise)):
        made.measure(batch(x), drawn())
    assert torch.equal(seen[0], seen[1])
    assert (seen[0] - seen[2])[spans].abs().max() > 1e-3


def test_padding_has_no_influence():
    made = task().requires_grad_(False).eval()
    x, mask = X[1:2, :1700], MASK[1:2, :1700]
    found = [made.measure(batch(F.pad(x, (0, more)), F.pad(mask, (0, more))), drawn())["sound"] for more in (0, 90)]
    assert float(found[0][0]) == pytest.approx(float(found[1][0]), rel=1e-5)
    assert [int(count) for _, count in found] == [2, 2]


def test_clips_too_short_are_told_once():
    made = task(span_seconds=0.2)
    with pytest.warns(
        UserWarning, match=r"hides nothing of a batch of 'audio', none of whose clips has two spans of 0.2"
    ):
        ((total, count),) = made.measure(batch(), drawn()).values()
    assert float(total.detach()) == int(count) == 0
    total.backward()  # as other objectives may have a gradient
    made.measure(batch(), drawn())


def test_every_weight_learns():
    made = task()
    made.measure(batch(), drawn())["sound"][0].backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


@pytest.mark.parametrize("how", [{"span_seconds": 0.001}, {"span_seconds": 0.025}, {"ratio": 1.0}])
def test_numbers_out_of_range_are_refused(how):
    with pytest.raises(ValueError, match="wanted a multiple of 0.01 seconds and a ratio in 0..1"):
        task(**how)
