"""What the pages on conditions show is so: their tables are read, their lines are those that a user gets."""

import re
from pathlib import Path

import pytest
import torch
from pdiff_plugins.generation.class_conditions import check_counts_of_sets, check_images
from pdiff_plugins.images.class_sets import class_sets
from pdiff_plugins.images.data import Split
from pdiff_plugins.openmmlab.classes import Classes, background_label
from pdiff_plugins.openmmlab.columns import Columns

from pdiff.files.checkpoint_conditions import read_conditions
from pdiff.run.splits import SPLITS
from pdiff.runtime.errors import PdiffError

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "conditions.md").read_text(encoding="utf-8")
OPENMMLAB = (DOCS / "openmmlab.md").read_text(encoding="utf-8")
GENERATION = (DOCS / "generation.md").read_text(encoding="utf-8")
IMAGES = re.search(r"```text\n(image,light,angle\n.*?)```", OPENMMLAB, re.DOTALL)[1]
KINDS = ["bus", "car", "person"]
TABLES = [block for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if "rotated_03?.pth" in block]


def files(*angles: str) -> list[Path]:
    return [Path(f"zoo/rotated_{angle}.pth") for angle in angles]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Return a function that reads conditions from the table `zoo/conditions.csv`, or another, with a text."""
    (tmp_path / "zoo").mkdir()
    monkeypatch.chdir(tmp_path)

    def read(text: str, own: list[Path], suffix: str = "csv") -> list[dict]:
        table = Path(f"zoo/conditions.{suffix}")
        table.write_text(text)
        return read_conditions(str(table), own)

    return read


@pytest.mark.parametrize(("suffix", "angles"), [("csv", ("000", "015", "030", "035")), ("json", ("000", "030", "035"))])
def test_table_of_the_page_is_read(told, suffix, angles):
    (text,) = (table for table in TABLES if table.startswith("{") == (suffix == "json"))
    found = told(text, files(*angles), suffix)
    assert found[0] == {"condition": {"angle": 0.0}, "split": "seen"}
    assert found[-1] == {"condition": {"angle": 30.0}, "split": "unseen"}


def test_expression_of_the_page_finds_a_number_for_each_digit():
    expression = re.search(r"^checkpoints:\n.*\n  conditions: (.*)$", PAGE, re.MULTILINE)[1]
    assert f"checkpoints.conditions='{expression}'" in PAGE
    (found,) = read_conditions(expression, [Path("net_class0110000001_3.pth")])
    assert list(found["condition"]) == [f"bits{place}" for place in range(10)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("rotated_000.pth,0\nrotated_015.pth,high\nrotated_045.pth,3", "got 'high'"),
        ("rotated_000.pth,0\nrotated_015.pth,15", "has no row"),
        ("rotated_0[04]*,0\nrotated_015.pth,15\nrotated_01*,15", "both match"),
    ],
)
def test_line_of_the_page_is_what_a_user_gets(told, rows, words):
    (line,) = (line for line in PAGE.splitlines() if line.startswith("error: ") and words in line)
    with pytest.raises(PdiffError) as caught:
        told(f"file,angle\n{rows}\n", files("000", "015", "045"))
    assert f"error: {caught.value}" == line


def test_page_has_every_split():
    SPLITS.import_from_location()
    assert re.findall(r"^\| `\{type: (\w+)", PAGE, re.MULTILINE) == list(SPLITS.module_dict)


class Photographs:
    """A data set of mmengine's as far as a table of images looks at it."""

    def __init__(self, *names: str):
        self.paths = [f"data/{name}" for name in names]

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": self.paths[index]}


NIGHT, DAY = ("night/0001.jpg", "night/0002.jpg"), ("day/0001.jpg",)


def photographs(select: tuple[str, ...]) -> dict[str, Photographs]:
    """Return data sets of all images of the page, but for the split `select`."""
    return {"train": Photographs(*NIGHT, *DAY), "select": Photographs(*select), "test": Photographs(*NIGHT, *DAY)}


def lines(page: str) -> list[str]:
    """Return the error lines of a page."""
    return [line.removeprefix("error: ") for line in page.splitlines() if line.startswith("error: ")]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Return a function that writes the images.csv of the page, but for what is replaced, and reads its columns."""
    monkeypatch.chdir(tmp_path)

    def read(old: str = "", new: str = "", columns="light") -> Columns:
        Path("images.csv").write_text(IMAGES.replace(old, new))
        return Columns(0, "images.csv", columns)

    return read


def test_table_of_images_becomes_the_conditions_that_the_page_says(table):
    kind = table(columns=["light", "angle"])
    assert kind.table.names == ("light.bright", "light.dark", "angle")
    assert len(kind) == 3
    kind.bind(photographs(NIGHT + DAY))


@pytest.mark.parametrize(
    ("change", "select", "words"),
    [
        (("2.jpg,dark", "2.jpg,"), NIGHT, "has no value"),
        (("day/0001.jpg", "night/0002.jpg"), NIGHT, "other values"),
        (("day/0001.jpg", "dusk/0001.jpg"), NIGHT, "lacks"),
        ((), NIGHT, "has no image in select"),
    ],
)
def test_line_about_a_table_of_images_is_what_a_user_gets(table, change, select, words):
    with pytest.raises(PdiffError) as caught:
        table(*change).bind(photographs(select))
    assert [str(caught.value)] == [line for line in lines(OPENMMLAB) if words in line]


def test_line_about_the_background_is_what_a_user_gets():
    with pytest.raises(PdiffError) as caught:
        background_label(["road", "car"], None)
    assert str(caught.value) in lines(OPENMMLAB)


@pytest.mark.parametrize("subsets", [[["car"], ["cart"]], [["car"], []], 120])
def test_line_about_sets_of_classes_is_what_a_user_gets(subsets):
    with pytest.raises(PdiffError) as caught:
        class_sets(KINDS, 0, subsets)
    assert str(caught.value) in lines(PAGE)


def test_line_about_a_class_without_objects_is_what_a_user_gets():
    kind = Classes(0, [["bus"]])
    kind.table, kind.names, kind.places = class_sets(KINDS, 0, [["bus"]]), KINDS, [0, 1, 2]
    with pytest.raises(PdiffError) as caught:
        kind.check_objects({"train": [9, 9, 9], "select": [0, 9, 9], "test": [9, 9, 9]}, "object")
    assert str(caught.value) in lines(PAGE)


def test_lines_about_real_images_are_what_a_user_gets():
    labels = torch.tensor([7] * 31 + [3] * 99)
    split = Split(torch.zeros(len(labels), 1, 1, 1), labels, 10, 1, 1, torch.device("cpu"))
    with pytest.raises(PdiffError) as few:
        check_counts_of_sets([[3], [7]], split, "select", 32, 20)
    with pytest.raises(PdiffError) as none:
        check_images([[2, 3]], {"test": split})
    assert lines(GENERATION) == [str(none.value), str(few.value)]
