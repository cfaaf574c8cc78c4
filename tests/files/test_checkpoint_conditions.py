"""Conditions of checkpoint files: from a table by name or glob, or from the names themselves."""

from pathlib import Path

import pytest

from pdiff.files.checkpoint_conditions import read_conditions
from pdiff.runtime.errors import PdiffError

FILES = [Path("zoo/a1.pth"), Path("zoo/a2.pth"), Path("zoo/b.pth")]
NESTED = [Path("zoo/left/last.pt"), Path("zoo/right/last.pt"), Path("zoo/right/best.pt")]


@pytest.fixture
def told(tmp_path):
    """Return a function that reads the conditions of files from a table with a text."""

    def read(name: str, text: str, files=FILES) -> list[dict]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_conditions(str(tmp_path / name), files)

    return read


def test_rows_of_a_csv_are_found_by_name_and_come_in_the_order_of_the_files(told):
    found = told("c.csv", "file,angle,scale\nb.pth,3,1\na1.pth,-1.5,1e-1\na2.pth,2,1\n")
    assert found == [
        {"condition": {"angle": -1.5, "scale": 0.1}},
        {"condition": {"angle": 2.0, "scale": 1.0}},
        {"condition": {"angle": 3.0, "scale": 1.0}},
    ]


def test_columns_split_and_group_are_texts_beside_the_condition(told):
    found = told("c.csv", "file,split,angle,group\na*,seen,1,7\nb.pth,unseen,2,8\n")
    assert found[0] == {"condition": {"angle": 1.0}, "split": "seen", "group": "7"}
    assert found[2] == {"condition": {"angle": 2.0}, "split": "unseen", "group": "8"}


def test_an_entry_of_json_holds_numbers_by_name_and_labels(told):
    found = told("c.json", '{"a?.pth": {"angle": 1, "split": "seen"}, "b.pth": {"split": "unseen", "angle": 2.5}}')
    assert found == [{"condition": {"angle": 1.0}, "split": "seen"}] * 2 + [
        {"condition": {"angle": 2.5}, "split": "unseen"}
    ]


def test_a_name_with_a_slash_is_a_path_below_the_common_folder(told):
    found = told("c.csv", "file,a\nleft/last.pt,1\nright/*.pt,2\n", NESTED)
    assert [row["condition"]["a"] for row in found] == [1.0, 2.0, 2.0]


def test_a_name_without_a_slash_stands_for_every_file_of_that_name(told):
    found = told("c.csv", "file,a\nlast.pt,1\nb*,2\n", NESTED)
    assert [row["condition"]["a"] for row in found] == [1.0, 1.0, 2.0]


def test_a_name_with_brackets_is_that_file_and_no_glob(told):
    files = [Path("run[1].pth"), Path("run1.pth")]
    assert told("c.csv", "file,a\nrun[1].pth,1\nrun1.pth,2\n", files)[1] == {"condition": {"a": 2.0}}


def test_marks_and_line_ends_of_spreadsheets_are_read(told):
    assert told("c.csv", '\ufefffile,a\r\n"*.pth",1\r\n\r\n')[0] == {"condition": {"a": 1.0}}


def test_bits_in_a_name_become_a_number_each():
    found = read_conditions("_class(?P<bits>[01]{3})_", [Path("n_class010_7.pt"), Path("n_class110_8.pt")])
    assert found[1] == {"condition": {"bits0": 1.0, "bits1": 1.0, "bits2": 0.0}}


def test_other_groups_of_a_name_are_numbers_and_labels():
    expression = r"angle(?P<angle>-?\d+)_(?P<split>\w+)_(?P<group>g\d)\."
    found = read_conditions(expression, [Path("angle-45_seen_g0.pt"), Path("angle010_unseen_g1.pt")])
    assert found == [
        {"condition": {"angle": -45.0}, "split": "seen", "group": "g0"},
        {"condition": {"angle": 10.0}, "split": "unseen", "group": "g1"},
    ]


def test_digits_of_which_one_is_neither_0_nor_1_are_one_number():
    found = read_conditions(r"e(?P<epoch>\d+)\.", [Path("e10.pt"), Path("e11.pt"), Path("e12.pt")])
    assert [row["condition"] for row in found] == [{"epoch": 10.0}, {"epoch": 11.0}, {"epoch": 12.0}]


def test_an_expression_with_a_slash_is_searched_in_the_path_below_the_common_folder():
    found = read_conditions(r"size(?P<size>\d)/", [Path("zoo/size2/last.pt"), Path("zoo/size3/last.pt")])
    assert [row["condition"]["size"] for row in found] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,a\na1.pth,1\n", r"c\.csv has no row for 'a2\.pth' \(2 of 3 checkpoints\)\. Add it, or a glob"),
        ("file,a\n*,1\nc.pth,1\n", r"c\.csv, row 3: 'c\.pth' matches none of the 3 checkpoints of checkpoints"),
        ("file,a\na*,1\n*.pth,2\n", r"c\.csv, row 2 and row 3: both match 'a1\.pth'\. Leave one of them\.$"),
        ("file,a\n*,1\nb.pth,1\n", r"c\.csv, row 2 and row 3: both match 'b\.pth'\."),
        ("file,a\na*,1\nb.pth,high\n", r"c\.csv, row 3: got 'high' for 'a', expected a finite number\. Mend it\.$"),
        ("file,a\n*,nan\n", r"c\.csv, row 2: got nan for 'a', expected a finite number"),
        ("file,a\n*,-inf\n", r"c\.csv, row 2: got -inf for 'a', expected a finite number"),
        ("file,a\n*,\n", r"c\.csv, row 2: got '' for 'a', expected a finite number"),
        ("file,a\n*,1_0\n", r"c\.csv, row 2: got '1_0' for 'a', expected a finite number"),
        ("file,bits\n*,0110\n", r"c\.csv, row 2: got '0110' for 'bits', expected a finite number"),
        ("file,a,split\n*,1,\n", r"c\.csv, row 2: got '' for 'split', expected a text\. Mend it\.$"),
        ("file,split\n*,seen\n", r"c\.csv, row 2: got no condition, expected numbers by name"),
        ("name,a\n*,1\n", r"c\.csv: got the header 'name,a', expected 'file', then names that differ, with commas"),
        ("file;a\n*;1\n", r"c\.csv: got the header 'file;a', expected 'file', then names that differ, with commas"),
        ("file,a,a\n*,1,1\n", r"c\.csv: got the header 'file,a,a', expected 'file', then names that differ"),
        ("file,a\n*,1,2\n", r"c\.csv, row 2: got 3 cells, expected 2 as in the header\. Mend it\.$"),
        ('file,a\n*,"1\n', r"c\.csv, row 2: is no CSV \(.*\)\. Mend it\.$"),
        ("file,a\n", r"c\.csv holds no row\. Write one for each checkpoint, or one for a glob\.$"),
        ("", r"c\.csv: got the header '', expected 'file'"),
    ],
)
def test_csv_that_does_not_give_each_file_one_sound_row_is_refused_by_row(told, text, line):
    with pytest.raises(PdiffError, match=line):
        told("c.csv", text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a*": {"x": 1}, "b.pth": {"y": 1}}', r"c\.json, 'b\.pth': got the name 'y'\. Known: x\.$"),
        ('{"a*": {"x": 1, "y": 1}, "b.pth": {"y": 1}}', r"c\.json, 'b\.pth': lacks 'x', expected x, y"),
        ('{"*": {"x": NaN}}', r"c\.json, '\*': got nan for 'x', expected a finite number"),
        ('{"*": {"x": "1"}}', r"c\.json, '\*': got '1' for 'x', expected a finite number"),
        ('{"*": {"x": true}}', r"c\.json, '\*': got True for 'x', expected a finite number"),
        ('{"*": {"x": 1, "group": 3}}', r"c\.json, '\*': got 3 for 'group', expected a text\. Mend it\.$"),
        (
            '{"a*": {"x": 1, "split": "seen"}, "b.pth": {"x": 1}}',
            r"c\.json, 'b\.pth': 'split' is given for some checkpoints\. Give it for each, or for none\.$",
        ),
        ('{"*": {}}', r"c\.json, '\*': got no condition, expected numbers by name"),
        ('{"*": 1}', r"c\.json, '\*': got 1, expected numbers by name\. Mend it\.$"),
        ('{"a*": {"x": 1}, "*1.pth": {"x": 2}}', r"c\.json, 'a\*' and '\*1\.pth': both match 'a1\.pth'"),
        ('{"*": {"x": 1}, "*": {"x": 2}}', r"c\.json: is not valid JSON \('\*' stands in it twice\)\. Mend it\.$"),
        ("[1]", r"c\.json: got list, expected an object, \{\"file name or glob\": \{\"angle\": 1\.0\}\}"),
        ("{", r"c\.json: is not valid JSON \(.*\)\. Mend it\.$"),
        ("{}", r"c\.json holds no row\."),
    ],
)
def test_json_that_does_not_give_each_file_one_sound_entry_is_refused_by_name(told, text, line):
    with pytest.raises(PdiffError, match=line):
        told("c.json", text)


def test_a_table_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    line = r"^checkpoints\.conditions: got '.*c\.csv', which cannot be read \(No such file or directory\)\. Check the"
    with pytest.raises(PdiffError, match=line):
        read_conditions(str(tmp_path / "c.csv"), FILES)
    (tmp_path / "c.json").write_bytes(b"\xff")
    with pytest.raises(PdiffError, match=r"c\.json', which cannot be read \('utf-8' codec can't decode"):
        read_conditions(str(tmp_path / "c.json"), FILES)


@pytest.mark.parametrize(
    ("expression", "line"),
    [
        (r"a\d", r"got 'a\\\\d', expected a \.csv or \.json file, or a regular expression with named groups"),
        ("angles.yaml", r"got 'angles\.yaml', expected a \.csv or \.json file, or a regular expression with named"),
        (r"a(?P<x>\d", r"got .* \(missing \), unterminated subpattern at position 1\), expected a \.csv or"),
        (r"a(?P<x>\d)", r"'a\(\?P<x>\\\\d\)' does not match 'b\.pth' \(1 of 3 checkpoints\)\. Mend it, or narrow"),
        (r"(?P<x>\w+)\.", r"checkpoints\.conditions, 'a1\.pth': got 'a1' for 'x', expected a finite number"),
        (r"(?P<split>\w)", r"checkpoints\.conditions, 'a1\.pth': got no condition, expected numbers by name"),
        (r"[ab](?P<x>\d)?(?P<y>)", r"checkpoints\.conditions, 'a1\.pth': got '' for 'y', expected a finite number"),
    ],
)
def test_expression_that_gives_no_number_for_each_file_is_refused(expression, line):
    with pytest.raises(PdiffError, match=rf"^(checkpoints\.conditions: )?{line}"):
        read_conditions(expression, FILES)


def test_a_group_that_not_every_name_has_is_refused_by_name():
    with pytest.raises(PdiffError, match=r"^checkpoints\.conditions, 'a3\.pt': lacks 'y', expected x, y"):
        read_conditions(r"a(?P<x>\d)(?:b(?P<y>\d))?\.pt", [Path("a2b7.pt"), Path("a3.pt")])


def test_bits_of_different_length_are_refused():
    line = r"^checkpoints\.conditions: group 'b' is '01' in one name and '110' in another, expected as many digits in"
    with pytest.raises(PdiffError, match=line):
        read_conditions(r"(?P<b>[01]+)", [Path("a01.pt"), Path("a110.pt")])
