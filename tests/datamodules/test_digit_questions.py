import os

import numpy as np
import pytest

from mm.datamodules.digit_questions import PICTURES, QUESTIONS, DigitQuestionsDataModule
from mm.datamodules.digits import WORDS
from mm.targets.classes import ClassTarget

HOW = {"batch_size": 2, "num_workers": 0, "on_error": "raise", "split": {"val": 0.1, "test": 0.1, "seed": 0}, "seed": 0}
COUNT = {"train": 60, "val": 20, "test": 40}


def test_answers_are_right_and_splits_apart():
    if "MM_DATA" not in os.environ:
        pytest.skip("needs MM_DATA, the folder with the data sets")
    how = HOW | {"readers": {"target": ClassTarget()}}
    module = DigitQuestionsDataModule(os.environ["MM_DATA"], COUNT, 0, **how)
    table = module.table
    assert [(table.split == split).sum() for split in COUNT] == [60, 20, 40]
    assert set(table.inputs["text"]) == set(QUESTIONS)
    for row, split in enumerate(table.split):
        picture = table.inputs["vision"].of[row]
        assert PICTURES[split][0] <= picture < PICTURES[split][1]
    clips = {split: set() for split in COUNT}
    for row, split in enumerate(table.split):
        wave, rate = table.inputs["audio"][row]
        assert rate == 8000
        clips[split].add(np.asarray(wave).tobytes())
    assert not clips["train"] & clips["test"] and not clips["val"] & clips["test"]
    again = DigitQuestionsDataModule(os.environ["MM_DATA"], COUNT, 0, **how).table
    assert list(again.inputs["text"]) == list(table.inputs["text"])


def test_questions_by_hand():
    said, seen, larger = QUESTIONS.values()
    assert (said(3, 7), seen(3, 7), larger(3, 7), larger(7, 3), larger(3, 3)) == ("seven", "three", "no", "yes", "no")
    assert len(WORDS) == 10


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"datamodule.count: got {'train': 1}, wanted a number from 0 of"):
        DigitQuestionsDataModule(str(tmp_path), {"train": 1}, 0, **HOW)
    with pytest.raises(ValueError, match="digit_questions: no file .*mnist.*; put MNIST's four idx files"):
        _ = DigitQuestionsDataModule(str(tmp_path), COUNT, 0, **HOW).table
