import pytest

from pdiff.report.cells import interval, number, percent, short, signed


@pytest.mark.parametrize("text", [number(None), short(None), percent(None), interval(None)])
def test_figure_that_does_not_exist_is_empty(text):
    assert text == ""


@pytest.mark.parametrize(("text", "expected"), [("0.1", "+0.1"), ("-0.1", "-0.1"), ("", "")])
def test_sign_is_shown(text, expected):
    assert signed(text) == expected
