"""What a config section builds, and the line for each way in which it can be wrong."""

import re

import pytest
from mmengine.registry import Registry

from pdiff.engine.registries import AUTOENCODERS, DENOISERS, SAMPLERS, SCALINGS
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.registry import GROUP, build, call

SHAPES = Registry("shape", scope="pdiff")


@SHAPES.register_module(name="box")
class Box:
    """Something with a given, a required and an optional argument."""

    def __init__(self, size: int, width: int, height: int = 2):
        self.facts = (size, width, height)


def test_a_section_builds_what_its_type_names():
    assert build(SHAPES, {"type": "box", "width": 3}, "here", size=1).facts == (1, 3, 2)


def test_of_what_is_offered_a_class_gets_what_it_takes():
    offered = {"size": 1, "layout": None}
    assert build(SHAPES, {"type": "box", "width": 3}, "here", offered).facts == (1, 3, 2)


def test_what_is_given_must_be_taken():
    with pytest.raises(PdiffError, match=r"^here: got type 'box', which takes no layout\. Give it that argument\.$"):
        build(SHAPES, {"type": "box", "width": 3}, "here", size=1, layout=None)


@pytest.mark.parametrize("kind", [Box, "fractions:Fraction"])
def test_a_type_may_be_a_class_or_say_where_one_is(kind):
    section = {"type": kind, "width": 3} if kind is Box else {"type": kind, "numerator": 3}
    given = {"size": 1} if kind is Box else {}
    built = build(SHAPES, section, "here", **given)
    assert (built.facts == (1, 3, 2)) if kind is Box else (built == 3)


@pytest.mark.parametrize("kind", ["no_such_package:Box", "fractions:Box", ":"])
def test_a_place_without_a_class_is_refused(kind):
    with pytest.raises(PdiffError, match=rf"^here\.type: got '{kind}', which cannot be imported \("):
        build(SHAPES, {"type": kind}, "here")


@pytest.mark.parametrize("kind", ["math:pi", "math:"])
def test_a_place_of_something_that_cannot_be_called_is_refused(kind):
    with pytest.raises(PdiffError, match=rf"^here\.type: got '{kind}', which is neither a class nor a function\."):
        build(SHAPES, {"type": kind}, "here")


def test_a_type_that_does_not_say_what_it_takes_is_refused():
    with pytest.raises(PdiffError, match=r"^here: got type 'builtins:dict', which does not say what it takes\."):
        build(SHAPES, {"type": "builtins:dict"}, "here")


@pytest.mark.parametrize("kind", [5, None, ["box"], {"box": 1}])
def test_a_type_that_is_no_text_is_refused_with_those_that_exist(kind):
    with pytest.raises(PdiffError, match=rf"^here\.type: got {re.escape(repr(kind))}\. .*Known: "):
        build(SHAPES, {"type": kind}, "here")


def test_a_module_that_cannot_be_imported_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "torn_module.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PdiffError, match=r"got 'torn_module:Box', which cannot be imported \(two lines\)\.$"):
        build(SHAPES, {"type": "torn_module:Box"}, "here")


def test_a_type_that_nobody_knows_is_looked_for_among_other_packages(monkeypatch):
    shapes = Registry("shapes of others", scope="pdiff")

    class Point:
        """An entry point whose module registers a class."""

        value, dist = "circles", None

        def load(self) -> None:
            """Register it."""
            shapes.register_module(name="circle", module=Box)

    monkeypatch.setattr("pdiff.runtime.registry.entry_points", lambda group: [Point()] if group == GROUP else [])
    assert build(shapes, {"type": "circle", "width": 3}, "here", size=1).facts == (1, 3, 2)


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


