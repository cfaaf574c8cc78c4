import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pdiff.report.drawing import INK, MANY_POINTS, draw
from pdiff.runtime.errors import PdiffError


def cloud(axes, count):
    axes.scatter(np.arange(count), np.arange(count), color="#0072B2")
    axes.set_xlabel("a < b")


def ids(svg):
    return re.findall(r'\bid="([^"]+)"', svg)


def test_figure_is_written_as_png_and_returned_as_svg(tmp_path):
    figure = draw(tmp_path, "cloud", "Title", "Caption.", cloud, 10)
    assert (tmp_path / "cloud.png").read_bytes().startswith(b"\x89PNG")
    assert (figure.name, figure.title, figure.caption) == ("cloud", "Title", "Caption.")
    assert ET.fromstring(figure.svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert draw(None, "cloud", "", "", cloud, 10).svg
    assert list(tmp_path.iterdir()) == []


def test_text_and_axes_take_the_colour_of_the_page():
    svg = draw(None, "cloud", "", "", cloud, 10).svg
    assert INK not in svg
    assert "currentColor" in svg
    assert "a &lt; b</text>" in svg
    assert "#ffffff" not in svg


def test_ids_are_the_own_ones_of_each_figure():
    one, other = (draw(None, name, "", "", cloud, 10).svg for name in ("one", "other"))
    assert len(set(ids(one) + ids(other))) == len(ids(one)) + len(ids(other))
    for svg in (one, other):
        assert {link.lstrip("#") for link in re.findall(r'(?:href="|url\()(#[^")]+)', svg)} <= set(ids(svg))


def test_svg_fits_its_place_and_names_its_title_and_caption():
    head = draw(None, "cloud", "", "", cloud, 10, height=3.0).svg.split(">")[0]
    assert 'viewBox="0 0 432 216"' in head
    assert "width" not in head
    assert 'aria-labelledby="cloud-title cloud-caption"' in head


def test_many_points_become_an_image_and_few_do_not():
    assert "data:image/png" not in draw(None, "cloud", "", "", cloud, MANY_POINTS - 1).svg
    assert "data:image/png" in draw(None, "cloud", "", "", cloud, MANY_POINTS).svg


def test_the_same_drawing_gives_the_same_bytes():
    assert draw(None, "cloud", "", "", cloud, 10).svg == draw(None, "cloud", "", "", cloud, 10).svg


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PdiffError, match=r"cloud.png: cannot be written"):
        draw(tmp_path / "file", "cloud", "", "", cloud, 10)
