"""Tables of what is known of networks, plain and compressed."""

import bz2
import gzip
import lzma

import pytest

from pdiff.files.table import read_table
from pdiff.runtime.errors import PdiffError

TEXT = ',step,acc,name,id,flag\n0,86,0.5,relu,007,True\n1,3,,"a,b",2_4,False\n2,-1,nan,None,1e-3,\n'
COLUMNS = {
    "step": [86, 3, -1],
    "acc": [0.5, None, None],
    "name": ["relu", "a,b", None],
    "id": ["007", "2_4", 0.001],
    "flag": [True, False, None],
}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", lambda data: data), ("t.csv.gz", gzip.compress), ("t.csv.xz", lzma.compress),
        ("t.csv.bz2", bz2.compress), ("t.csv", lambda data: b"\xef\xbb\xbf" + data),
        ("t.csv", lambda data: data.replace(b"\n", b"\r\n")),
    ],
)  # fmt: skip
def test_cells_are_numbers_texts_or_nothing(tmp_path, name, write):
    (tmp_path / name).write_bytes(write(TEXT.encode()))
    assert read_table(tmp_path / name, "table") == COLUMNS


def test_tabs_stand_between_the_cells_of_a_tsv(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx,y\n")
    assert read_table(tmp_path / "t.tsv", "table") == {"a": [1], "b": ["x,y"]}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"a,a\n1,2\n", "got the header 'a,a', expected names that differ"),
        ("t.csv", b"", "got the header '', expected names that differ"),
        ("t.csv", b"a,b\n1\n", "row 2: got 1 cells, expected 2 as in the header"),
        ("t.csv", b"a\n\xff\n", "table: got '.*t.csv', which is no CSV"),
        ("t.csv", b'a\n"x\n', "which is no CSV"),
        ("t.csv.gz", b"a\n1\n", r"which cannot be read \(Not a gzipped file"),
        ("t.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-9], "which cannot be read"),
        ("t.csv.xz", b"a\n1\n", "which cannot be read"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PdiffError, match=words):
        read_table(tmp_path / name, "table")


def test_a_missing_table_is_one_line(tmp_path):
    with pytest.raises(PdiffError, match=r"^table: got '.*', which cannot be read \(No such file or directory\)"):
        read_table(tmp_path / "t.csv", "table")
