"""Balancing units: equal norms, the same function, the same result for scaled copies."""

import torch

from pdiff.canonical.applying import flat, scale, views
from pdiff.canonical.balance import balance
from tests.canonical.by_hand import mlp, outputs, rng


def vectors(layout, count=4):
    return torch.randn(count, layout.size, generator=rng(0))


def norms(places, tensors):
    return sum(
        tensors[p.tensor].double().square().movedim(p.axis, 0).reshape(len(p.entries), -1).sum(1) for p in places
    ).sqrt()


def test_what_is_made_has_the_norm_of_what_is_read():
    layout, symmetries = mlp(6, 9, 8, 7, 3)
    for vector in balance(layout, symmetries.gains, vectors(layout)):
        tensors = views(layout, vector)
        for gain in symmetries.gains:
            assert torch.allclose(norms(gain.made, tensors), norms(gain.read, tensors), rtol=1e-5)


def test_the_function_stays_and_the_norm_falls():
    layout, symmetries = mlp(6, 9, 8, 3)
    x = torch.randn(10, 6, generator=rng(1), dtype=torch.float64)
    before = vectors(layout)
    after = balance(layout, symmetries.gains, before)
    assert (after.norm(dim=1) < before.norm(dim=1)).all()
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(outputs(layout, one, x), outputs(layout, other, x), rtol=1e-5, atol=1e-5)


def test_a_scaled_copy_has_the_same_balance():
    layout, symmetries = mlp(6, 9, 8, 3)
    own = vectors(layout)
    factors = [0.5 + 1.5 * torch.rand(4, gain.size, generator=rng(2)) for gain in symmetries.gains]
    copies = flat(layout, scale(views(layout, own), symmetries.gains, factors, 1), 1)
    found = [balance(layout, symmetries.gains, vectors) for vectors in (own, copies)]
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


def test_a_vector_is_balanced_by_itself_as_among_others():
    layout, symmetries = mlp(6, 9, 8, 3)
    own = vectors(layout)
    own[1] *= torch.logspace(-3, 3, layout.size)
    together = balance(layout, symmetries.gains, own)
    assert all(
        torch.equal(balance(layout, symmetries.gains, one[None])[0], two)
        for one, two in zip(own, together, strict=True)
    )


def test_a_dead_unit_keeps_its_scale():
    layout, symmetries = mlp(6, 4, 3)
    own = vectors(layout, 1)
    for tensor in list(views(layout, own).values())[:2]:
        tensor[:, 1] = 0
    kept = views(layout, own)["1.weight"][0, :, 1].clone()
    assert torch.equal(views(layout, balance(layout, symmetries.gains, own))["1.weight"][0, :, 1], kept)
