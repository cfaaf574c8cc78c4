"""A sweep from its file and from the command line."""

import pytest
import yaml

from pdiff.runtime.errors import PdiffError
from pdiff.sweep.reading import over_file, read_sweep

TOLD = {"plugin": None, "config": None, "options": None, "seeds": None, "only": None, "collect_again": False}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a sweep's file."""

    def write(**values):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "sweep.yaml"

    return write


def test_file_says_all_of_a_sweep(file, tmp_path):
    path = file(
        config="../mine.yaml", options={"fit.repeats": 2}, seeds=[0, 1], only=["soup"], collect_again=True,
        vary=[{"a": [1, 2], "b": [3]}, {"c": [None, True]}],
    )  # fmt: skip
    sweep = read_sweep(path)
    assert sweep.to_dict() == {
        "plugin": None, "config": str(tmp_path / "../mine.yaml"), "options": {"fit.repeats": 2}, "seeds": [0, 1],
        "only": ["soup"], "collect_again": True, "vary": [{"a": [1, 2], "b": [3]}, {"c": [None, True]}],
    }  # fmt: skip
    assert sweep.keys == ["a", "b", "c"]


def test_plugin_is_a_path_from_the_folder_of_the_file_or_a_name(file, tmp_path):
    (tmp_path / "mine.py").write_text("")
    assert read_sweep(file(plugin="mine.py")).plugin == str(tmp_path / "mine.py")
    assert read_sweep(file(plugin="classification")).plugin == "classification"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"varry": []}, "got unknown key 'varry'. Did you mean 'vary'?"),
        ({"vary": {"a": [1]}}, "vary: got {'a': [1]}, expected a list."),
        ({"vary": [["a"]]}, "vary: got ['a'], expected a section."),
        ({"vary": [{"a": 1}]}, "vary.a: got 1, expected a list."),
        ({"seeds": 3}, "seeds: got 3, expected a list."),
        ({"seeds": ["0"]}, "seeds: got '0', expected an integer."),
        ({"only": "soup"}, "only: got 'soup', expected a list. Write [soup]."),
        ({"only": [1]}, "only: got 1, expected a text."),
        ({"options": [1]}, "options: got [1], expected a section."),
        ({"collect_again": 1}, "collect_again: got 1, expected true or false."),
        ({"plugin": 1}, "plugin: got 1, expected a text."),
    ],
)
def test_file_with_a_mistake_is_refused(file, values, words):
    with pytest.raises(PdiffError) as error:
        read_sweep(file(**values))
    assert str(error.value).startswith(f"sweep {file(**values)}: ")
    assert words in str(error.value)


def test_command_line_goes_over_the_file(file):
    path = file(plugin="classification", options={"a": 1, "b": 2}, seeds=[0], vary=[{"fit.x": [1]}], only=["soup"])
    sweep = over_file(str(path), {**TOLD, "options": {"b": 3}, "seeds": [4, 5]}, {}, False)
    assert (sweep.options, sweep.seeds, sweep.only) == ({"a": 1, "b": 3}, [4, 5], ["soup"])


@pytest.mark.parametrize("name", ["plugin", "config", "vary"])
def test_what_the_file_says_alone_is_refused_beside_it(file, name):
    path, vary = file(plugin="classification", vary=[{"fit.x": [1]}]), {"fit.y": [1]} if name == "vary" else {}
    told = {**TOLD, **({} if name == "vary" else {name: "mine"})}
    with pytest.raises(PdiffError, match=f"^--{name}: got it with --sweep, whose file says what is swept. Leave one"):
        over_file(str(path), told, vary, False)


def test_keys_are_combined_or_each_varied_by_itself_beside_the_config():
    told, keys = {**TOLD, "plugin": "classification"}, {"fit.x": [1, 2], "fit.y": [3]}
    assert over_file(None, told, keys, False).vary == [keys]
    assert over_file(None, told, keys, True).vary == [{}, {"fit.x": [1, 2]}, {"fit.y": [3]}]


def test_each_without_keys_is_refused():
    with pytest.raises(PdiffError, match="^--each: got it without --vary, whose keys it is for. Leave it out.$"):
        over_file(None, {**TOLD, "plugin": "classification", "seeds": [0]}, {}, True)
