import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import pytest
import torch
import yaml
from transformers import ASTFeatureExtractor, AutoModel, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from mm.encoders.audio.huggingface import HuggingFaceAudio

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONV = {"conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [8, 4], "num_feat_extract_layers": 2}
CONV |= {
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "feat_proj_dropout": 0,
}
CONV |= {"activation_dropout": 0.0, "attention_dropout": 0.0}
CONFIGS = {
    "wav2vec2": {"model_type": "wav2vec2", "feat_extract_norm": "layer", **SMALL, **CONV},
    "hubert": {"model_type": "hubert", "feat_extract_norm": "layer", "do_stable_layer_norm": True, **SMALL, **CONV},
    "whisper": {"model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2}
    | {"encoder_ffn_dim": 32, "max_source_positions": 50, "num_mel_bins": 80, "decoder_layers": 1, "vocab_size": 20}
    | {"decoder_attention_heads": 2, "decoder_ffn_dim": 32, "dropout": 0.0, "pad_token_id": 0}
    | {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    "ast": {"model_type": "audio-spectrogram-transformer", "max_length": 40, "num_mel_bins": 32, **SMALL}
    | {"patch_size": 8, "frequency_stride": 8, "time_stride": 8, "hidden_dropout_prob": 0.0}
    | {"attention_probs_dropout_prob": 0.0},
}


def build(**arguments) -> HuggingFaceAudio:
    torch.manual_seed(0)
    defaults = {"pretrained": None, "config": None, "random_init": False, "features": None, "pool": "mean"}
    return HuggingFaceAudio(**(defaults | arguments))


@pytest.mark.parametrize("kind", CONFIGS)
def test_contract(contract, audio_batch, kind):
    contract(build(config=CONFIGS[kind]), *audio_batch)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("length", [1, 1500, 1601])
def test_padding(padding, kind, length):
    padding(build(config=CONFIGS[kind]), torch.randn(1, 2400), length, garbage=3.0)


def test_whisper_features():
    encoder = build(config=CONFIGS["whisper"])
    clips = [torch.randn(length) * 0.1 for length in (16000, 9000, 333)]
    mask = torch.arange(16000)[None] < torch.tensor([[16000], [9000], [333]])
    x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    inputs, real, _ = encoder.frontend(x, mask)
    wanted = WhisperFeatureExtractor(feature_size=80, chunk_length=1)(
        [c.numpy() for c in clips], sampling_rate=16000, return_tensors="pt"
    )
    torch.testing.assert_close(inputs["input_features"], wanted["input_features"], atol=1e-4, rtol=1e-4)
    assert real.sum(1).tolist() == [50, 29, 2]  # 20 ms each, begun ones count
    assert encoder.input.max_length == 16000


def test_ast_features():
    encoder = build(config=CONFIGS["ast"])
    clips = [torch.randn(length) * 0.1 for length in (6640, 4000, 400)]
    mask = torch.arange(6640)[None] < torch.tensor([[6640], [4000], [400]])
    x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    inputs, real, _ = encoder.frontend(x, mask)
    extract = ASTFeatureExtractor(num_mel_bins=32, max_length=40)
    for i, clip in enumerate(clips):
        wanted = extract(clip.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"][0]
        torch.testing.assert_close(inputs["input_values"][i], wanted, atol=1e-4, rtol=1e-4)
    assert real.sum(1).tolist() == [2 + 4 * 5, 2 + 4 * 3, 2 + 4 * 1]  # 40, 23 and 1 frames, 8 a patch, 4 rows of mels
    assert encoder.input.max_length == 6640


def test_wav2vec2_features():
    encoder = build(config=CONFIGS["wav2vec2"])
    clips = [torch.randn(length) * 0.1 + 0.05 for length in (1600, 900)]
    mask = torch.arange(1600)[None] < torch.tensor([[1600], [900]])
    x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    inputs, real, _ = encoder.frontend(x, mask)
    wanted = Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        [c.numpy() for c in clips], sampling_rate=16000, padding=True, return_tensors="pt"
    )
    torch.testing.assert_close(inputs["input_values"], wanted["input_values"], atol=1e-5, rtol=1e-4)
    assert (inputs["attention_mask"] == wanted["attention_mask"]).all()
    assert real.sum(1).tolist() == encoder.model._get_feat_extract_output_lengths(torch.tensor([1600, 900])).tolist()


def test_equals_a_saved_model_and_reads_its_feature_extractor(tmp_path):
    build(config=CONFIGS["wav2vec2"]).model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000).save_pretrained(tmp_path)
    encoder = build(pretrained=str(tmp_path)).eval()
    x = torch.randn(1, 1600)
    wanted = AutoModel.from_pretrained(tmp_path).eval()(x).last_hidden_state
    torch.testing.assert_close(encoder(x, torch.ones(1, 1600, dtype=torch.bool)).tokens, wanted)
    assert encoder.input.sample_rate == 8000
    again = build(**yaml.safe_load(yaml.safe_dump(encoder.architecture))).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x, torch.ones(1, 1600, dtype=torch.bool)).tokens, wanted)
    assert again.input == encoder.input


def test_mistakes():
    with pytest.raises(ValueError, match=r"set model.encoders.audio.pretrained=FOLDER"):
        build()
    with pytest.raises(ValueError, match="got 16001 samples, but the model reads at most 16000"):
        build(config=CONFIGS["whisper"])(torch.zeros(1, 16001), torch.ones(1, 16001, dtype=torch.bool))
