"""Matching units: the nearest order, whatever the order in which they came."""

from itertools import permutations

import torch

from pdiff.canonical.applying import flat, permute, views
from pdiff.canonical.matching import Matcher
from pdiff.weights.units import Group, Place
from tests.canonical.by_hand import layout_of, mlp, plain, reordered, residual, rng


def test_of_all_orders_the_nearest_is_found():
    layout, symmetries = mlp(5, 4, 3)
    own, onto = torch.randn(2, layout.size, generator=rng(0))
    (found,) = Matcher(layout, symmetries.groups).match(own, onto)

    def distance(order):
        return (flat(layout, permute(views(layout, own), symmetries.groups, [torch.tensor(order)]), 0) - onto).norm()

    assert tuple(found.tolist()) == min(permutations(range(4)), key=distance)


def test_a_match_is_nearer_than_the_order_of_the_file():
    layout, symmetries = residual()
    own, onto = torch.randn(2, layout.size, generator=rng(1))
    found = Matcher(layout, symmetries.groups).match(own, onto)
    assert [sorted(order.tolist()) for order in found] == [list(range(group.size)) for group in symmetries.groups]
    matched = flat(layout, permute(views(layout, own), symmetries.groups, found), 0)
    assert (matched - onto).norm() < 0.97 * (own - onto).norm()


def test_the_order_in_which_units_come_does_not_count():
    layout, symmetries = residual(blocks=5)
    own, onto = torch.randn(2, layout.size, generator=rng(2))
    matcher, copy = Matcher(layout, symmetries.groups), reordered(layout, symmetries, own, 3)
    one, other = (
        flat(layout, permute(views(layout, vector), symmetries.groups, matcher.match(vector, onto)), 0)
        for vector in (own, copy)
    )
    assert torch.equal(one, other)


def test_units_between_two_unmatched_groups_are_compared_by_their_sorted_values():
    layout = layout_of({"one": (4, 5), "two": (5, 3)})
    inner = Group("one", 5, (plain("one", 1, 5), plain("two", 0, 5)))
    groups = (Group("one", 4, (plain("one", 0, 4),)), inner)
    onto = torch.randn(layout.size, generator=rng(4))
    copy = flat(layout, permute(views(layout, onto), groups, [torch.randperm(n, generator=rng(5)) for n in (4, 5)]), 0)
    found = Matcher(layout, groups).match(copy, onto)
    assert torch.equal(flat(layout, permute(views(layout, copy), groups, found), 0), onto)


def test_units_of_several_entries_and_several_groups_along_one_axis():
    layout = layout_of({"one": (4, 7), "two": (3, 7), "both": (2, 14)})
    first = Place("both", 1, torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]))
    second = Place("both", 1, torch.tensor([[8, 11], [9, 12], [10, 13]]))
    groups = (Group("one", 4, (plain("one", 0, 4), first)), Group("two", 3, (plain("two", 0, 3), second)))
    onto = torch.randn(layout.size, generator=rng(6))
    copy = flat(layout, permute(views(layout, onto), groups, [torch.tensor([2, 0, 3, 1]), torch.tensor([2, 0, 1])]), 0)
    found = Matcher(layout, groups).match(copy, onto)
    assert torch.equal(flat(layout, permute(views(layout, copy), groups, found), 0), onto)
