"""What a config section builds, and the line for each way in which it can be wrong."""

import pytest
from mmengine.registry import Registry

from pdiff.engine import autoencoder, denoiser, scaling, schedule  # noqa: F401  (they fill the registries)
from pdiff.engine.registries import AUTOENCODERS, DENOISERS, SAMPLERS, SCALINGS
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.registry import build, call

SHAPES = Registry("shape", scope="pdiff")


@SHAPES.register_module(name="box")
class Box:
    """Something with a given, a required and an optional argument."""

    def __init__(self, size: int, width: int, height: int = 2):
        self.facts = (size, width, height)


def test_a_section_builds_what_its_type_names():
    assert build(SHAPES, {"type": "box", "width": 3}, "here", size=1).facts == (1, 3, 2)


def test_of_what_is_given_a_class_gets_what_it_takes():
    assert build(SHAPES, {"type": "box", "width": 3}, "here", size=1, layout=None).facts == (1, 3, 2)


def test_building_leaves_the_section_as_it_was():
    section = {"type": "box", "width": 3}
    build(SHAPES, section, "here", size=1)
    assert section == {"type": "box", "width": 3}


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"type": "bix"}, r"^here\.type: got 'bix'\. Did you mean 'box'\? Known: box\.$"),
        ({"width": 3}, r"^here\.type: got None\. Known: box\.$"),
        ({"type": "box", "widht": 3}, r"^here: got unknown key 'widht'\. Did you mean 'width'\? Known: height, width"),
        ({"type": "box"}, r"^here: missing a required argument: 'width'\. Arguments: width, height\.$"),
        ({"type": "box", "width": 3, "size": 9}, r"^here: got unknown key 'size'\."),
    ],
)
def test_a_wrong_section_is_refused_by_its_place_in_the_config(section, line):
    with pytest.raises(PdiffError, match=line):
        build(SHAPES, section, "here", size=1)


@pytest.mark.parametrize("section", ["box", None, 3, ["box"]])
def test_a_value_where_a_section_belongs_is_refused(section):
    with pytest.raises(PdiffError, match=r"^here: got .*expected a section"):
        build(SHAPES, section, "here", size=1)


@pytest.mark.parametrize("arguments", [{}, {"widht": 1}])
def test_a_function_is_called_with_the_same_checks(arguments):
    with pytest.raises(PdiffError, match=r"^there: .*width"):
        call(lambda width: width, arguments, "there")


@pytest.mark.parametrize(
    ("registry", "wrong", "right"),
    [
        (SAMPLERS, "DDIMM", "DDIM"),
        (SCALINGS, "per_tensr", "per_tensor"),
        (AUTOENCODERS, "convv", "conv"),
        (DENOISERS, "mpl", "mlp"),
    ],
)
def test_an_unknown_part_of_the_engine_lists_those_that_exist(registry, wrong, right):
    with pytest.raises(PdiffError, match=rf"^engine\.part\.type: got '{wrong}'\. Did you mean '{right}'\? Known: "):
        build(registry, {"type": wrong}, "engine.part")


