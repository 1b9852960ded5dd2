"""The loss beside transformers' own on the same vectors, padding without influence, and answers by heart."""

import math

import pytest
import torch
from heads.by_heart import learn

from mm.heads.causal_lm import CausalLMHead
from mm.tokenizers import train_tokenizer
from mm.types import IGNORE, Features

LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 2}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0}
GPT2 |= {"attn_pdrop": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["look here , the answer is yes no seven"] * 2, "wordpiece", 60).save_pretrained(path)
    return str(path)


def head(folder: str, config: dict | None = None, **how) -> CausalLMHead:
    torch.manual_seed(0)
    own = {"bos_token_id": 2, "eos_token_id": 3, "max_length": 6, "vocab_size": 60, "embed_dim": 8, "pretrained": None}
    return CausalLMHead(tokenizer=folder, config=config or LLAMA, **(own | how))


def fused(lengths: list[int], most: int = 4) -> Features:
    mask = torch.arange(most) < torch.tensor(lengths).unsqueeze(1)
    tokens = torch.randn(len(lengths), 4, 8, generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([tokens, torch.full((len(lengths), most - 4, 8), 1e3)], dim=1)
    return Features(tokens, mask, tokens[:, 0], torch.zeros(len(lengths), most, 2))


def test_what_is_written_must_fit_into_what_is_read(folder):
    made = head(folder, GPT2 | {"n_positions": 9}).eval()
    for length, fits in ((4, True), (5, False)):  # 4 of the input, the begin, and 4 more of the 5 that are written
        f = fused([length], length)
        said = made(f)
        if fits:
            assert len(made.decode(said, f, {})) == 1
            continue
        with pytest.raises(ValueError, match="reads 9 tokens, but prompt, input and answer are 10.*max_new_tokens"):
            made.decode(said, f, {})


def test_padding_is_not_read(folder):
    """A row is written beside a longer gap as alone: what counts is what is real."""
    made = head(folder, GPT2 | {"n_positions": 9}).eval()
    f = fused([4], 8)
    alone = made.decode(made(fused([4])), fused([4]), {})
    for row, other in zip(made.decode(made(f), f, {}), alone, strict=True):
        assert row["prediction"] == other["prediction"]
        assert row["log_probability"] == pytest.approx(other["log_probability"], rel=1e-4)


def test_an_answer_that_can_not_fit_is_refused_when_it_is_built(folder):
    with pytest.raises(ValueError, match=r"reads 6 tokens, but the prompt and max_new_tokens=5 are 7 at least; set"):
        head(folder, GPT2 | {"n_positions": 6}, prompt="look {input}")


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("projection", ["linear", "mlp", "queries"])
def test_loss_is_transformers_own_of_the_answer_alone(folder, config, projection):
    made = head(folder, config, prompt="look here {input} the answer", projection=projection, num_queries=3)
    made.eval().requires_grad_(False)
    target = torch.tensor([[7, 8, 3], [9, 3, IGNORE], [IGNORE] * 3, [7, 3, IGNORE]])
    wanted = 0.0
    for row, length in ((0, 4), (1, 2)):  # the third is unlabelled, of the fourth there is nothing to read
        f = fused([4, 2, 4, 0])
        prefix, _ = made.project(f.tokens[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        told = target[row][target[row] != IGNORE].unsqueeze(0)
        look = made.lm.get_input_embeddings()
        ahead, behind = (made.tokenizer(x, add_special_tokens=False).input_ids for x in ("look here", "the answer"))
        after = torch.cat([torch.tensor([[*behind, 2]]), told], 1)
        whole = torch.cat([look(torch.tensor([ahead])), prefix, look(after)], 1)
        labels = torch.full(whole.shape[:2], IGNORE)
        labels[0, -told.shape[1] :] = told
        wanted += float(made.lm(inputs_embeds=whole, labels=labels).loss) * told.shape[1]
    for most in (4, 9):
        f = fused([4, 2, 4, 0], most)
        total, count = made.loss(made(f, target), target, f)
        assert float(total) == pytest.approx(wanted, rel=1e-4)
        assert int(count) == 5


def test_answers_by_heart(folder):
    made = head(folder, prompt="{input} the answer is")
    texts = ["yes", "no seven", "seven"]
    ids = [[*made.tokenizer(text, add_special_tokens=False).input_ids, 3] for text in texts]
    target = torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in ids], True, IGNORE)
    f = fused([4, 3, 1])
    _, _, total, count = learn(made, target, lambda: f, lr=0.01)
    assert total / count < 0.05
    made.eval()
    for beams in (1, 2):
        made.options["num_beams"] = beams
        for most in (4, 9):
            wider = fused([4, 3, 1], most)
            said = made.decode(made(wider), wider, {})
            assert made(wider).compare(said, texts, made.decoding) == (texts, [[text] for text in texts])
            told, right = made(wider).confidences(said, texts, made.decoding)
            assert right == [True] * 3
            wanted = made.loss(made(f, target), target, f)[0].item()
            assert sum(math.log1p(math.exp(-odds)) for odds in told) == pytest.approx(wanted, rel=1e-3)


def test_how_probable_an_answer_is_beside_transformers(folder):
    made = head(folder, prompt="{input} the answer is").eval()
    f = fused([4, 3, 1])
    said = made.decode(made(f), f, {})
    whole, real = made.prompted(*made.project(f.tokens, f.mask), torch.full((3, 1), made.bos_token_id))
    for row in range(3):  # alone, so that nothing is padded
        how = made.options | {
            "eos_token_id": made.eos_token_id,
            "pad_token_id": made.eos_token_id,
            "output_logits": True,
        }
        own = whole[row : row + 1, real[row]]
        found = made.lm.generate(inputs_embeds=own, return_dict_in_generate=True, **how)
        steps = torch.stack(found.logits, 1).log_softmax(-1)[0]
        wanted = steps.gather(1, found.sequences[0].unsqueeze(1))
        assert said[row]["log_probability"] == pytest.approx(float(wanted.sum()), rel=1e-4)
        assert said[row]["probability"] == pytest.approx(float(wanted.mean().exp()), rel=1e-4)


def test_is_built_again_without_its_source(folder, tmp_path):
    first = head(folder).eval()
    first.lm.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    own = {"bos_token_id": 2, "eos_token_id": 3, "max_length": 6, "vocab_size": 60, "embed_dim": 8}
    taken = CausalLMHead(tokenizer=folder, pretrained=str(tmp_path), config=None, **own).eval()
    for name, x in first.lm.state_dict().items():
        assert torch.equal(x, taken.lm.state_dict()[name]), name
    again = CausalLMHead(tokenizer=folder, **(own | taken.architecture)).eval()
    again.load_state_dict(taken.state_dict())
    f = fused([4, 2])
    assert torch.equal(again(f).logits, taken(f).logits)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"prompt": "tell"}, "prompt: got 'tell', wanted one {input} in it"),
        ({"prompt": "{input}{input}"}, "wanted one {input} in it"),
        ({"projection": "conv"}, "projection: got 'conv' and num_queries=16, wanted one of linear, mlp, queries"),
        ({"pretrained": "somewhere"}, "got both of `pretrained` and `config`"),
    ],
)
def test_mistakes(folder, how, said):
    with pytest.raises(ValueError, match=said):
        head(folder, **how)


def test_another_tokenizer_than_the_models_is_refused(folder, tmp_path):
    made = head(folder)
    made.lm.save_pretrained(tmp_path)
    train_tokenizer(["something else"], "wordpiece", 30).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has a tokenizer of its own; write with it"):
        own = {"bos_token_id": 2, "eos_token_id": 3, "max_length": 6, "vocab_size": 60, "embed_dim": 8}
        CausalLMHead(tokenizer=folder, pretrained=str(tmp_path), config=None, **own)
