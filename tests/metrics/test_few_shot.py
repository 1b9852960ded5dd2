"""The nearest mean beside scikit-learn's, and shots that are drawn as is said."""

import numpy as np
from sklearn.neighbors import NearestCentroid

from mm.metrics.few_shot import draw, nearest, prototypes


def test_prototypes_are_scikit_learn_s_nearest_centroid():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 2, 5], 40)
    x = rng.normal(size=(40, 6)) + label[:, None] / 3
    unseen = rng.normal(size=(100, 6)) + 1
    centres, classes = prototypes(x, label)
    reference = NearestCentroid().fit(x, label)
    np.testing.assert_allclose(centres, reference.centroids_)
    assert (classes[nearest(unseen, centres)] == reference.predict(unseen)).all()


def test_shots_follow_from_the_seed_and_fewer_are_among_more():
    label = np.array([1, 0, 1, 0, 1, 1, 2])
    lots = draw(label, [0, 3])
    assert [sorted(lot.tolist()) for lot in lots] == [[1, 3], [0, 2, 4, 5], [6]]
    assert all((a == b).all() for a, b in zip(lots, draw(label, [0, 3])))
    assert len({tuple(draw(label, [0, number])[1].tolist()) for number in range(20)}) > 5
