"""Axes are sums of products of atoms, whatever order they are tied, cut and reshaped in."""

from pdiff.canonical.axes import Atom, cut, join, length, pin, reshape, resolve, unify, whole


def sizes(axis):
    return [[atom.size for atom in segment] for segment in resolve(axis)]


def pinned(axis):
    return [[bool(atom.pinned) for atom in segment] for segment in resolve(axis)]


def test_an_axis_becomes_the_product_that_it_is_tied_to():
    axis, channels, pixels = whole(12), whole(3), whole(4, pinned=True)
    unify(axis, join([channels, pixels]))
    assert sizes(axis) == [[3, 4]]
    assert pinned(axis) == [[False, True]]
    assert resolve(axis)[0][0] is resolve(channels)[0][0]


def test_an_axis_becomes_the_sum_that_it_is_tied_to():
    axis, one, two = whole(5), whole(2), whole(3)
    unify(axis, one + two)
    assert sizes(axis) == [[2], [3]]


def test_parts_of_a_flattened_map_are_parts_of_its_channels():
    channels = whole(6)
    flat = join([channels, whole(4, pinned=True)])
    first, last = cut(flat, [8, 16])
    assert sizes(channels) == [[2], [4]]
    assert sizes(first) == [[2, 4]]
    assert sizes(last) == [[4, 4]]
    assert pinned(last) == [[False, True]]


def test_parts_that_are_no_ranges_of_units_are_pinned():
    flat = join([whole(2), whole(6)])
    cut(flat, [2, 10])
    assert pinned(flat) == [[True, True]]


def test_a_part_of_one_entry_has_no_units():
    tokens = whole(5)
    one, rest = cut(tokens, [1, 4])
    assert sizes(one) == [[]]
    assert sizes(rest) == [[4]]


def test_factors_that_do_not_divide_each_other_are_pinned():
    one, other = join([whole(6), whole(4)]), join([whole(4), whole(6)])
    unify(one, other)
    assert pinned(one) == pinned(other) == [[True, True]]


def test_axes_of_two_lengths_are_pinned():
    one, other = whole(6), whole(4)
    unify(one, other)
    assert pinned(one) == pinned(other) == [[True]]


def test_what_is_tied_to_pinned_units_is_pinned_by_them():
    one, other, third = whole(6), whole(6, pinned="positions"), whole(6)
    unify(one, third)
    unify(third, other)
    assert resolve(one)[0][0].pinned == "positions"


def test_pin_says_whether_anything_was_free():
    axis = whole(4)
    assert pin(axis)
    assert not pin(axis)


def test_reshape_joins_and_splits_axes():
    batch, channels, rows, columns = whole(2, True), whole(8), whole(3, True), whole(5, True)
    flat = reshape([batch, channels, rows, columns], [2, 120])
    assert sizes(flat[1]) == [[8, 3, 5]]
    back = reshape(flat, [2, 1, 8, 15])
    assert sizes(back[1]) == [[]]
    assert resolve(back[2])[0][0] is resolve(channels)[0][0]
    assert length(back[3]) == 15


def test_reshape_splits_units_into_heads():
    (axis,) = [whole(24)]
    three, heads, width = reshape([axis], [3, 2, 4])
    assert sizes(axis) == [[3, 2, 4]]
    assert [sizes(part) for part in (three, heads, width)] == [[[3]], [[2]], [[4]]]


def test_a_sum_of_channels_stays_one_behind_flattening():
    channels = whole(2) + whole(3)
    (flat,) = reshape([channels, whole(4, True)], [20])
    assert sizes(flat) == [[2, 4], [3, 4]]


def test_a_sum_within_a_unit_is_pinned():
    outer, inner = whole(2), whole(2) + whole(3)
    (flat,) = reshape([outer, inner], [10])
    assert pinned(flat) == [[True]]
    assert pinned(outer) == [[True]]


def test_an_atom_that_has_become_others_says_so():
    atom = Atom(6)
    atom.replace(((Atom(2), Atom(3)),))
    assert [part.size for part in atom.leaves()[0]] == [2, 3]
