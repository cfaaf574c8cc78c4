"""Which folders a zoo of folders has, and what JSON in them says."""

import pytest

from pdiff.files.folders import folders_of, object_in


def test_folders_come_in_natural_order_each_once_whatever_links_lead_back(tmp_path):
    for name in ("t10", "t9/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "t9" / "loop").symlink_to(tmp_path)
    (tmp_path / "a_link").symlink_to(tmp_path / "t10")
    assert folders_of(str(tmp_path)) == [tmp_path, *(tmp_path / name for name in ("t9", "t9/inner", "t10"))]


@pytest.mark.parametrize("text", ["[1]", "null", "3", "{", ""])
def test_what_is_no_object_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        object_in(text)
