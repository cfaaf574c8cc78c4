"""What docs/conditions.md shows is so: its tables are read, its lines are those that a user gets."""

import re
from pathlib import Path

import pytest

from pdiff.files.checkpoint_conditions import read_conditions
from pdiff.run.splits import SPLITS
from pdiff.runtime.errors import PdiffError

PAGE = (Path(__file__).parents[1] / "docs" / "conditions.md").read_text(encoding="utf-8")
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
    expression = re.search(r"^  conditions: (.*)$", PAGE, re.MULTILINE)[1]
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
