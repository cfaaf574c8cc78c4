"""Conditions from a csv of images: which images each is about, and every way in which a table does not fit."""

from pathlib import Path

import pytest
import torch
from pdiff_plugins.openmmlab.columns import Columns
from pdiff_plugins.openmmlab.conditions import build_kind

from pdiff import PdiffError

COUNTS = {"train": 8, "select": 4, "test": 4}
LIGHTS = ("dark", "day", "dusk", "dark")
NAMES = [(f"{split}/{index:06d}.png", index) for split, count in COUNTS.items() for index in range(count)]


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a csv and returns its path; unless told, of all the scenes."""

    def write(rows: list[str] | None = None, header: str = "image,light,angle") -> str:
        path = tmp_path / "images.csv"
        lines = rows or [f"{name},{LIGHTS[index % 4]},{index % 2}" for name, index in NAMES]
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
        return str(path)

    return write


@pytest.fixture
def datasets(mmdet, splits) -> dict:
    """The data set of each split."""
    return {name: split.dataset for name, split in splits.items()}


def raised(function, *args, **kwargs) -> str:
    """Return the line of the error that a call ends with."""
    with pytest.raises(PdiffError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_texts_become_a_bit_for_each_value(table):
    kind = build_kind({"type": "columns", "file": table(), "columns": "light"}, 0)
    assert kind.table.names == ("light.dark", "light.day", "light.dusk")
    assert kind.table.values.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert len(kind) == 3


def test_numbers_stay_numbers(table):
    kind = Columns(0, table(), ["angle"])
    assert list(kind.table) == [{"angle": 0.0}, {"angle": 1.0}]


def test_each_combination_that_is_there_is_a_condition(table):
    kind = Columns(0, table(), ["angle", "light"])
    assert kind.table.names == ("angle", "light.dark", "light.day", "light.dusk")
    assert kind.table.values.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]


def test_sets_of_the_values_are_drawn_or_named(table):
    assert len(Columns(0, table(), "light", subsets=7)) == 7
    drawn = Columns(0, table(), "light", subsets=3, size=[2, 2])
    assert drawn.table.values.sum(1).tolist() == [2, 2, 2]
    named = Columns(0, table(), "light", subsets=[["dusk", "dark"]])
    assert list(named.table) == [{"light.dark": 1.0, "light.day": 0.0, "light.dusk": 1.0}]


def test_a_condition_is_about_the_images_of_its_values(table, datasets):
    kind = Columns(0, table(), ["angle", "light"])
    kind.bind(datasets)
    assert kind.labels(kind.table.values[0]) is None
    assert kind.rows(datasets["train"], kind.table.values[1]) == [0, 4]
    assert kind.rows(datasets["train"], kind.table.values[3]) == [3, 7]
    assert kind.rows(datasets["select"], kind.table.values[0]) == [2]
    assert kind.rows(datasets["test"], torch.tensor([0.5, 1, 0, 0])) == []


def test_a_condition_is_about_the_images_of_its_set(table, datasets):
    kind = Columns(0, table(), "light", subsets=[["dusk", "dark"]])
    kind.bind(datasets)
    assert kind.rows(datasets["test"], kind.table.values[0]) == [0, 2, 3]


def test_a_condition_of_no_value_is_refused(table):
    kind = Columns(0, table(), ["angle", "light"])
    assert kind.labels(torch.tensor([0.5, 1, 0, 1])) is None
    for bits in ([0.0, 0.0, 0.0], [0.5, 0.0, 1.0]):
        line = raised(kind.labels, torch.tensor([1.0, *bits]))
        assert line.startswith(f"condition: got {bits} for light, expected 1 for some of its values and 0 for the")
        assert line.endswith("Name one of dark, day, dusk.")


def test_images_are_found_by_whichever_end_of_their_path(table, datasets):
    rows = [f"{Path(datasets['test'].get_data_info(0)['img_path']).parents[1]}/{name},0" for name, _ in NAMES[:8]]
    rows += [f"select\\{index:06d}.png,0" for index in range(4)] + [f"./test/{index:06d}.png, 0 " for index in range(4)]
    kind = Columns(0, table(rows, "image,angle"), "angle")
    kind.bind(datasets)
    assert kind.rows(datasets["test"], kind.table.values[0]) == [0, 1, 2, 3]


def test_images_can_stand_in_another_column(table, datasets):
    kind = Columns(0, table([f"{index % 2},{name}" for name, index in NAMES], "angle,file"), "angle", image="file")
    kind.bind(datasets)
    assert kind.rows(datasets["select"], torch.tensor([1.0])) == [1, 3]


def test_images_that_are_in_no_split_do_no_harm(table, datasets):
    rows = [f"{name},{index % 2}" for name, index in NAMES] + ["other/000000.png,1"]
    Columns(0, table(rows, "image,angle"), "angle").bind(datasets)


def test_the_file_must_be_there(tmp_path):
    line = raised(Columns, 0, str(tmp_path / "none.csv"), "light")
    assert line.startswith("collect.conditions.file: ")
    assert "none.csv cannot be read ([Errno 2] No such file or directory" in line


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["a.png,dark,1", "b.png,,2"], "line 3, has no value for 'light'. Fill it in."),
        (["a.png,dark,1", "", "b.png,day"], "line 4, has no value for 'angle'. Fill it in."),
        (
            ["a.png,dark,1", "./a.png,dark,2"],
            "line 3, gives ./a.png other values than a line before. Keep one of them.",
        ),
        (["a.png,dark,1", "b.png,day,0,5"], "line 3, has 4 cells, expected 3. Quote a cell that has a comma."),
        (["a.png,dark,1", 'b.png,day,"0,5"'], "has '0,5' for 'angle', expected a point in a number. Write it so."),
        (['a.png,"dark,1', "b.png,day,2"], "(unexpected end of data). Give a csv in UTF-8, a row for each image."),
        (["a.png,dark,1", "b.png,day,nan"], "has nan for 'angle', expected finite numbers. Mend it."),
        ([""], "has no image, expected names of columns and a row for each image. Mend it."),
    ],
)
def test_rows_that_do_not_fit_are_refused(table, rows, line):
    found = raised(Columns, 0, table(rows), ["light", "angle"])
    assert found.startswith("collect.conditions.file: ")
    assert found.endswith(line)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image;light;angle", "begins with 'image;light;angle', expected names of columns with commas between them. "),
        ("image,light,light", "has 2 columns 'light', expected one. Give them names that differ."),
    ],
)
def test_names_of_columns_that_do_not_fit_are_refused(table, header, line):
    assert f"images.csv {line}" in raised(Columns, 0, table(["a.png,dark,1"], header), "light")


def test_lines_without_a_cell_are_left_out(table):
    assert len(Columns(0, table(["", "a.png,dark,1", " , ", ",,,,", "b.png,day,2,"]), "light")) == 2


def test_a_row_that_is_there_twice_says_the_same(table):
    assert len(Columns(0, table(["a.png,dark,1", "a.png,dark,1"]), "light")) == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"columns": "lights"}, "columns: got 'lights'. Did you mean 'light'? Known: angle, light."),
        ({"columns": ["light", 3]}, "columns: got 3. Known: angle, light."),
        ({"columns": "image"}, "columns: got 'image'. "),
        ({"columns": []}, "columns: got [], expected some columns, each once."),
        ({"columns": ["light", "light"]}, "columns: got ['light', 'light'], expected some columns, each once."),
        ({"columns": "light", "image": "imag"}, "image: got 'imag'. Did you mean 'image'? Known: angle, image, light."),
        ({"columns": "angle", "subsets": 2}, "subsets: got 2 for angle, expected null, as only one column of texts"),
        ({"columns": ["light", "angle"], "subsets": 2}, "subsets: got 2 for light, angle, expected null, as only"),
        ({"columns": "light", "subsets": 0}, "subsets: got 0, expected how many sets"),
        ({"columns": "light", "subsets": [["night"]]}, "subsets[0]: got the class 'night'."),
        ({"columns": "light", "size": [1, 2]}, "size: got [1, 2] without subsets, expected null. Leave it out."),
    ],
)
def test_settings_that_do_not_fit_are_refused(table, settings, line):
    assert raised(Columns, 0, table(), **settings).startswith(f"collect.conditions.{line}")


def test_a_table_that_lacks_images_is_refused(table, datasets):
    kind = Columns(0, table([f"{name},1" for name, _ in NAMES[:6]], "image,angle"), "angle")
    line = raised(kind.bind, datasets)
    assert "images.csv lacks 2 of the 8 images of train, the first is " in line
    assert line.endswith("train/000006.png. Add them, by name or by the end of the path.")


def test_a_row_for_two_images_is_refused(table, datasets):
    kind = Columns(0, table([f"{index:06d}.png,1" for index in range(8)], "image,angle"), "angle")
    line = raised(kind.bind, datasets)
    assert "images.csv has one row, 000000.png, for " in line
    assert line.endswith("select/000000.png. Write more of their paths.")


def test_a_condition_without_images_in_a_split_is_refused(table, datasets):
    rows = [f"{name},{'dark' if name.startswith('train') else 'day'}" for name, _ in NAMES]
    line = raised(Columns(0, table(rows, "image,light"), "light").bind, datasets)
    assert line.startswith("collect.conditions: the condition light.day=1 of ")
    assert "has no image in train, expected some in each of train, select, test." in line


def test_a_detector_is_built_for_columns(detector, table):
    counts = detector.values()["task"]["data"]["scenes"]
    rows = [f"{split}/{index:06d}.png,{index % 2}" for split in COUNTS for index in range(counts[split])]
    values = detector.values()
    values["collect"]["conditions"] = {"type": "columns", "file": table(rows, "image,angle"), "columns": "angle"}
    task = detector.build(values)
    assert task.splits["train"].kind is task.splits["test"].split.kind
    assert task.facts["images"] == "those of a condition (angle)"
