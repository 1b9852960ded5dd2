"""A message about detection heads none of whose boxes reaches the score threshold."""

from collections.abc import Mapping, Sequence

from mm.predictions import Decoding
from mm.tasks.answers import Answers

GOOD_RANKING = 0.1  # average precision at IoU 0.5 from which boxes are worth a lower threshold


def describe_empty_predictions(
    decodings: Mapping[str, Decoding],
    kinds: Mapping[str, str],
    decoded: Answers,
    rows: Sequence[int],
    metrics: Mapping[str, float],
) -> list[str]:
    """Describe every detection head that ranks boxes well, but predicts none, because no score reaches the threshold.

    Args:
        decodings: Head name to its decoding settings, with the threshold of its calibration.
        kinds: Target name to its kind, "boxes" for detection.
        decoded: The predictions of the rows.
        rows: Indices of the tested rows.
        metrics: Metric name to value, with `test/map50`, or `test/HEAD/map50` for several heads.

    Returns:
        A sentence per head, with the remedy.
    """
    sentences = []
    for name, decoding in decodings.items():
        average_precision = metrics.get("test/map50" if len(decodings) == 1 else f"test/{name}/map50", 0.0)
        if kinds.get(name) != "boxes" or average_precision < GOOD_RANKING:
            continue
        best = 0.0
        for _, table in decoded.tables(rows):
            if any(table.column(f"{name}/prediction").to_pylist()):
                break
            below = table.column(f"{name}/low_confidence").to_pylist()
            best = max([best, *(boxes[0]["score"] for boxes in below if boxes)])
        else:
            sentences.append(
                f"{name}: no box of the {len(rows)} test rows reaches the score threshold {decoding.threshold:g}, so "
                f"that every prediction is empty, though map50 is {average_precision:.3f}: the boxes are ranked better "
                f"than their scores say, of which the highest is {best:.3f}. Choose the threshold on validation rows, "
                "and write it into the model directory, with mm calibrate checkpoint=DIR threshold=f1"
            )
    return sentences
