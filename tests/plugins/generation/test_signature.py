"""How alike two candidates are by what they make of the same noise."""

import torch
from pdiff_plugins.generation.signature import similarity


def signatures(count: int = 3, seed: int = 0) -> torch.Tensor:
    """Return features `(count, 5, 4)`."""
    return torch.randn(count, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_equal_output_has_similarity_one_exactly():
    # Many candidates: beyond 25 of them torch would form distances by products, which are not exact.
    a = 1000 * signatures(40)
    assert torch.equal(similarity(a, a).diagonal(), torch.ones(40))


def test_images_as_far_apart_as_unrelated_ones_have_similarity_one_half():
    a = signatures()
    shift = torch.tensor([0.6, 0.0, 0.8, 0.0])
    torch.testing.assert_close(similarity(a, a + shift).diagonal(), torch.full((3,), 0.5))


def test_similarity_is_by_the_mean_distance_over_the_noises():
    a, b = signatures(2), signatures(3, seed=1)
    table = similarity(a, b)
    assert table.shape == (2, 3)
    expected = 1 / (1 + (a[1] - b[2]).norm(dim=1).mean())
    torch.testing.assert_close(table[1, 2], expected)
    torch.testing.assert_close(table, similarity(b, a).T)


def test_candidate_whose_images_are_not_finite_is_like_none():
    a = signatures()
    a[1] = torch.inf
    table = similarity(a, a)
    assert (table[1] == 0).all()
    assert (table[:, 1] == 0).all()
    assert table[0, 2] > 0
