"""What may be swept."""

import pytest

from pdiff.runtime.errors import PdiffError
from pdiff.sweep.sweep import Sweep

WHOLE = {
    "plugin": "classification", "config": None, "options": {}, "vary": [{"engine.autoencoder.latent": [8, 16]}],
    "seeds": [], "only": [], "collect_again": False,
}  # fmt: skip


def test_sweep_that_can_be_passes():
    Sweep(**WHOLE).check()
    Sweep(**{**WHOLE, "vary": [], "seeds": [0, 1]}).check()
    Sweep(**{**WHOLE, "vary": [{"task.data.size": [8, 16]}], "collect_again": True, "seeds": [0]}).check()
    Sweep(**{**WHOLE, "vary": [{"fit.seed": [0, 1]}]}).check()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"plugin": None}, "sweep: got none of --plugin, --config and --sweep. Give one."),
        ({"vary": []}, "sweep: got nothing to vary. Give --vary KEY=a,b, or --seeds 0,1,2."),
        ({"vary": [{}]}, "sweep: got nothing to vary. Give --vary KEY=a,b, or --seeds 0,1,2."),
        ({"seeds": [0, 0]}, "--seeds: got [0, 0], expected each once. Leave one out."),
        ({"vary": [{"x": []}]}, "--vary: got x with [], expected values, each once. Mend it."),
        ({"vary": [{"x": [1, 2, 1]}]}, "--vary: got x with [1, 2, 1], expected values, each once. Mend it."),
        ({"vary": [{"fit.seed": [1]}], "seeds": [0]}, "--vary: got fit.seed, which --seeds sets. Leave one out."),
        (
            {"vary": [{"seed": [1]}], "seeds": [0], "collect_again": True},
            "--vary: got seed, which --seeds sets. Leave one out.",
        ),
        (
            {"vary": [{"task.x": [1, 2]}]},
            "--vary: got task.x, which changes the collection, of which there is one. Give --collect-again, or leave "
            "it out.",
        ),
        (
            {"vary": [{"seed": [1, 2]}]},
            "--vary: got seed, which changes the collection, of which there is one. Give --collect-again, or leave it "
            "out.",
        ),
        (
            {"only": ["soup"], "options": {"evaluate.only": ["codec"]}},
            "--only: got it and the option evaluate.only, which it is. Leave one out.",
        ),
        (
            {"only": ["soup"], "vary": [{"evaluate.only": [[], ["codec"]]}]},
            "--only: got it and the option evaluate.only, which it is. Leave one out.",
        ),
        (
            {"seeds": [0, 1], "options": {"fit.seed": 3}},
            "--seeds: got them and the option fit.seed, which they set. Leave one out.",
        ),
    ],
)
def test_sweep_that_cannot_be_is_refused_in_one_line(changes, line):
    with pytest.raises(PdiffError) as error:
        Sweep(**{**WHOLE, **changes}).check()
    assert str(error.value) == line


def test_seeds_are_of_the_fit_or_of_everything():
    assert Sweep(**WHOLE).seed_key == "fit.seed"
    assert Sweep(**WHOLE).seeds_of == "Seeds are of fitting and drawing alone: all runs share one population."
    again = Sweep(**{**WHOLE, "collect_again": True})
    assert again.seed_key == "seed"
    assert again.seeds_of == "Seeds are of everything: each has a collection of its own."
