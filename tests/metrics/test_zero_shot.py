"""Classes told by prompts: which is closest, of one input and of several."""

import pytest
import torch
import torch.nn.functional as F

from mm.metrics.zero_shot import class_vectors, together, zero_shot


def draw(rows=6, inputs=2, classes=3, width=5):
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(rows, inputs, width, generator=generator), dim=-1)
    prompts = F.normalize(torch.randn(classes, 4, width, generator=generator), dim=-1)
    return vectors, torch.ones(rows, inputs, dtype=torch.bool), prompts


def test_a_class_is_the_mean_of_its_prompts():
    _, _, prompts = draw()
    found = class_vectors(prompts)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    for i in range(3):
        assert F.cosine_similarity(found[i], prompts[i].sum(0), dim=0) == pytest.approx(1)


@pytest.mark.parametrize("combine", ["mean", "product", "mip"])
def test_of_one_input_both_ways_choose_the_closest_class(combine):
    vectors, present, prompts = draw()
    classes = class_vectors(prompts)
    found = zero_shot(vectors[:, :1], present[:, :1], classes, combine, 10.0).argmax(1)
    for i in range(6):
        closest = max(range(3), key=lambda c: float(vectors[i, 0] @ classes[c]))
        assert found[i] == closest


def test_the_mean_is_of_what_is_there():
    vectors, present, prompts = draw()
    present[0, 1] = False
    both = together(vectors, present)
    torch.testing.assert_close(both[0], vectors[0, 0])
    assert F.cosine_similarity(both[1], vectors[1].sum(0), dim=0) == pytest.approx(1)
    classes = class_vectors(prompts)
    torch.testing.assert_close(zero_shot(vectors, present, classes, "mean", 1.0), both @ classes.T)


def test_the_product_multiplies_what_the_experts_that_are_there_say():
    vectors, present, prompts = draw()
    present[0, 1] = False
    classes = class_vectors(prompts)
    found = zero_shot(vectors, present, classes, "product", 10.0).exp()
    each = (10.0 * vectors @ classes.T).softmax(-1)  # (R, N, C)
    torch.testing.assert_close(found[0], each[0, 0])
    torch.testing.assert_close(found[1:], each[1:].prod(1))


def test_joint_is_the_score_of_symile():
    """Of image, sound and prompt: the sum over the width of their product, as the loss compares items."""
    vectors, present, prompts = draw()
    present[0, 1] = False
    classes = class_vectors(prompts)
    found = zero_shot(vectors, present, classes, "mip", 10.0)
    for row in range(6):
        for c in range(3):
            beside = vectors[row, 1] if row else torch.ones(5)
            wanted = sum(float(vectors[row, 0, d] * beside[d] * classes[c, d]) for d in range(5))
            assert float(found[row, c]) == pytest.approx(wanted, abs=1e-6)
