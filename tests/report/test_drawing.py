import base64

import numpy as np

from pdiff.report.drawing import Figure, draw


def cloud(axes, count):
    axes.scatter(np.arange(count), np.arange(count), color="#0072B2")


def size(png):
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_drawing_is_a_png_of_the_size_that_was_asked_for():
    png = draw(cloud, 10, height=3.0)
    assert png.startswith(b"\x89PNG")
    assert size(png) == (960, 480)


def test_several_panels_are_given_as_a_flat_list():
    seen = []
    draw(seen.extend, panels=(2, 2))
    assert len(seen) == 4


def test_figure_holds_its_picture():
    head, data = Figure("Title", "Caption.", b"\x89PNG...").source.split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x89PNG..."


def test_the_same_drawing_gives_the_same_bytes():
    assert draw(cloud, 10) == draw(cloud, 10)
