import re

import pytest

from mm.cli.check import main

TAGS = "mm.targets.tags.TagTarget"
NUMBER = "mm.targets.regression.RegressionTarget"


@pytest.mark.parametrize(
    "words",
    [
        ["mm.heads.classification.ClassificationHead"],
        ["mm.heads.regression.RegressionHead", f"target_codec={NUMBER}"],
        [
            "mm.heads.token_classification.TokenClassificationHead",
            "input=text",
            f"target_codec={{_target_: {TAGS}, input: text}}",
        ],
        ["mm.fusion.sum.SumFusion", "reduce=max"],
        [
            "mm.encoders.text.hashed_ngrams.TextHashedNgrams",
            "ngram=2",
            "num_hash_buckets=16",
            "dropout=0.0",
            "max_length=null",
            "pool=mean",
        ],
    ],
)
def test_a_part_that_keeps_its_contract(words, capsys):
    main(words)
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 5
    assert all(line.startswith("ok ") for line in said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: mm check"),
        (["RegressionHead"], "wanted module.Class"),
        (["mm.heads.regresion.RegressionHead"], "no module 'mm.heads.regresion'"),
        (["mm.heads.regression.RegressionHed"], "it has RegressionHead; did you mean 'RegressionHead'?"),
        (["mm.heads.regression.RegressionHead"], f"missing a required argument: 'mean'.*such as target_codec={NUMBER}"),
        (
            ["mm.heads.regression.RegressionHead", f"target_codec={NUMBER}s"],
            "no class 'RegressionTargets' .*it has RegressionTarget; did you",
        ),
        (["mm.fusion.sum.SumFusion", "reduc=max"], "got an unexpected keyword argument 'reduc'"),
        (["mm.fusion.sum.SumFusion", "max"], "got 'max', wanted argument=value"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        main(words)
