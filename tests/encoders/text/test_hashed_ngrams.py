import torch

from mm.encoders.text.hashed_ngrams import TextHashedNgrams, hashed_ngrams


def build() -> TextHashedNgrams:
    torch.manual_seed(0)
    return TextHashedNgrams(embed_dim=16, ngram=3, num_hash_buckets=500, dropout=0.0, max_length=None, pool="mean")


def test_contract(contract, text_batch):
    contract(build(), *text_batch)


def test_padding(padding):
    padding(build(), torch.randint(1, 257, (1, 20)), 11, garbage=77)


def test_an_ngram_has_one_bucket_wherever_it_stands():
    ids = torch.tensor([list(b"abcabc")]) + 1
    bucket = hashed_ngrams(ids, 3, 1 << 40)[0]
    assert (bucket[2] == bucket[5]).all()  # "c", "bc", "abc"
    assert (bucket[3, 0] == bucket[0, 0]) and (bucket[3, 1] != bucket[0, 1])  # "a" again, behind "c" now


def test_different_ngrams_differ():
    ids = torch.randint(1, 257, (64, 32))
    triples = {tuple(row[i : i + 3].tolist()) for row in ids for i in range(30)}
    assert len(hashed_ngrams(ids, 3, 1 << 40)[:, 2:, 2].unique()) == len(triples)
