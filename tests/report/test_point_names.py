import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pdiff.report.point_names import inside, name_points


@pytest.fixture
def axes():
    axes = Figure(figsize=(6, 4.4), layout="constrained").subplots()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    return axes


def boxes(axes):
    axes.figure.draw_without_rendering()
    return [Text.get_window_extent(text) for text in axes.texts]


def test_names_do_not_touch_and_stay_inside(axes):
    places = np.random.default_rng(0).uniform(0.5, 9.5, (14, 2))
    name_points(axes, {f"generated_source{k}": tuple(place) for k, place in enumerate(places)})
    assert len(axes.texts) == 14
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes(axes), 2))
    assert all(inside(box, axes.bbox) for box in boxes(axes))


def test_name_with_room_stands_right_of_its_point_without_a_line(axes):
    name_points(axes, {"ridge": (5, 5)})
    assert boxes(axes)[0].x0 > axes.transData.transform((5, 5))[0]
    assert axes.texts[0].arrow_patch is None


def test_name_at_the_right_edge_stands_left_of_its_point(axes):
    name_points(axes, {"ridge": (9.9, 5)})
    assert boxes(axes)[0].x1 < axes.transData.transform((9.9, 5))[0]


def test_name_that_has_to_stand_away_is_led_to_its_point(axes):
    name_points(axes, {f"generated_{k}": (9.9, 5 + 0.01 * k) for k in range(4)})
    assert [text.arrow_patch is None for text in axes.texts][-1] is False
