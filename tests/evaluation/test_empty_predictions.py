"""The message about a detection head whose threshold no box reaches, though it ranks them well."""

import pytest

from mm.evaluation.empty_predictions import describe_empty_predictions
from mm.predictions import Decoding
from mm.tasks.answers import Answers

BOX = {"label": "cat", "box": [0.0, 0.0, 1.0, 1.0]}


def describe(tmp_path, *scores, kind="boxes", **metrics) -> list[str]:
    decoded = Answers(tmp_path)
    for row, score in enumerate(scores):
        boxes = [] if score is None else [BOX | {"score": score}]
        sure = [box for box in boxes if box["score"] >= 0.5]
        below = [box for box in boxes if box["score"] < 0.5]
        decoded.add(row, {"target": {"prediction": sure, "low_confidence": below}})
    metrics = {"test/map50": 0.32} | {f"test/{name}": value for name, value in metrics.items()}
    decodings = {"target": Decoding(classes=("cat",), threshold=0.5)}
    return describe_empty_predictions(decodings, {"target": kind}, decoded, range(len(scores)), metrics)


def test_a_good_ranking_without_a_prediction(tmp_path):
    (sentence,) = describe(tmp_path, 0.4, None, 0.31)
    assert sentence.startswith("target: no box of the 3 test rows reaches the score threshold 0.5")
    assert "map50 is 0.320" in sentence and "of which the highest is 0.400" in sentence
    assert sentence.endswith("with mm calibrate checkpoint=DIR threshold=f1")


@pytest.mark.parametrize(
    ("scores", "settings"),
    [((0.4, 0.6), {}), ((0.4,), {"map50": 0.02}), ((0.4,), {"kind": "class"})],
)
def test_no_message(tmp_path, scores, settings):
    assert describe(tmp_path, *scores, **settings) == []
