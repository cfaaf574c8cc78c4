import pytest

from pdiff import PdiffError
from pdiff.engine.behaving_settings import DEFAULTS, behaving_settings


@pytest.mark.parametrize("key", ["decoder", "hypernet"])
def test_settings_are_completed_by_the_defaults(key):
    assert behaving_settings(key, {}) == DEFAULTS[key]
    assert behaving_settings(key, {"steps": 7}) == {**DEFAULTS[key], "steps": 7}


@pytest.mark.parametrize(
    ("key", "settings", "words"),
    [
        ("decoder", {"step": 3}, "fit.decoder.*'?step'?.*steps"),
        ("decoder", {"width": 3}, "fit.decoder.*width"),
        ("hypernet", {"noise": 0.1}, "fit.hypernet.*noise"),
        ("decoder", {"noise": -0.1}, "fit.decoder.noise: got -0.1"),
        ("decoder", {"lr": "fast"}, "fit.decoder.lr: got 'fast'"),
        ("decoder", {"steps": 0}, "fit.decoder.steps: got 0, expected an integer from 1 on"),
        ("hypernet", {"width": 0}, "fit.hypernet.width: got 0"),
        ("hypernet", {"depth": 1.5}, "fit.hypernet.depth: got 1.5"),
        ("hypernet", {"amp": 1}, "fit.hypernet.amp: got 1"),
    ],
)
def test_settings_that_cannot_be_are_told(key, settings, words):
    with pytest.raises(PdiffError, match=words):
        behaving_settings(key, settings)
