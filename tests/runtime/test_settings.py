"""YAML files and words of the command line: what they mean, and a line for what they cannot."""

import os

import pytest

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import at_home, merge, read_word, read_yaml, to_yaml


def write(path, text: str) -> str:
    """Write a config file and return its path."""
    path.write_text(text)
    return str(path)


def test_merge_goes_into_sections_and_leaves_its_arguments_alone():
    base, over = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}, {"a": {"y": {"w": 4}}, "c": 5}
    assert merge(base, over) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": 3, "c": 5}
    assert (base, over) == ({"a": {"x": 1, "y": {"z": 2}}, "b": 3}, {"a": {"y": {"w": 4}}, "c": 5})


def test_merge_replaces_a_section_of_another_type():
    base = {"a": {"type": "one", "x": 1}}
    assert merge(base, {"a": {"type": "two", "y": 2}}) == {"a": {"type": "two", "y": 2}}
    assert merge(base, {"a": {"type": "one", "y": 2}}) == {"a": {"type": "one", "x": 1, "y": 2}}
    assert merge(base, {"a": {"x": 2}}) == {"a": {"type": "one", "x": 2}}


def test_merging_nothing_changes_nothing():
    base = {"a": {"x": [1, 2]}, "b": None}
    assert merge(base, {}) == base
    assert merge({}, base) == base
    assert merge(base, base) == base


def test_merge_replaces_a_section_that_deletes_and_leaves_deeper_marks_alone():
    base = {"a": {"type": "one", "x": 1}, "b": 2}
    assert merge(base, {"a": {"_delete_": True, "y": 2}}) == {"a": {"y": 2}, "b": 2}
    assert merge(base, {"a": {"_delete_": True, "y": {"_delete_": True}}})["a"] == {"y": {"_delete_": True}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-3", -3), ("+3", 3), ("0", 0), ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e-3", 1e-3), ("2E5", 2e5),
        ("true", True), ("False", False), ("null", None), ("[a, 1, null]", ["a", 1, None]), ("[a,b]", ["a", "b"]),
        ("[]", []), ("{}", {}), ("{type: x, p: [1e-3, yes]}", {"type": "x", "p": [1e-3, "yes"]}), ("{1: 2}", {"1": 2}),
        ("'007'", "007"), ('"a b"', "a b"), ("''", ""), ("['007', 007]", ["007", "007"]), ("[[1], [2]]", [[1], [2]]),
    ],
)  # fmt: skip
def test_a_word_is_what_yaml_reads(text, value):
    found = read_word(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "007", "2024_01", "1_000", "0x1F", "0o7", "12:30:45", "2024-01-01", "nan", "inf", "yes", "no", "on", "off", "~",
        "~/ck", "my runs/ck", " 5", "5 ", "a,b", "lr=0.1,seed=1/*.pth", "run[1]/*.pth", "*.pth", "[a-z]*.pth", "{a,b}",
        "{1,2}", "regex(a{1,2}b)", "regex((bn1|bn2),x)", "module(a,b)", "a,)", "(a,b", "[[1,2]", "&a", "*a", "[*a]",
        "[&a b]", "!!python/object:os.system", "[!!str 1]", "{a: 1, a: 2}", "{[1]: 2}", "'a' b", "'", '"', "[1] # one",
        "a: b", "- a", "# a", "%a", "@a", "|", ">", "\0", "'\0'", "\ud800", "'\ud800'", "a\tb", "[" * 5000,
        "{a: " * 5000, "[" * 50 + "]" * 50, "9" * 5000, "<<",
    ],
)  # fmt: skip
def test_a_word_that_is_no_yaml_value_is_the_text_that_was_typed(text):
    assert read_word(text) == text


def test_a_tilde_is_the_folder_of_the_user_wherever_a_text_begins_with_it(monkeypatch):
    monkeypatch.setenv("HOME", "/people/ann")
    values = {"a": "~/ck", "b": ["~", "x~", {"c": "~/d/*.pth"}], "e": 3, "f": None}
    found = {"a": "/people/ann/ck", "b": ["/people/ann", "x~", {"c": "/people/ann/d/*.pth"}], "e": 3, "f": None}
    assert at_home(values) == found


def test_what_is_written_is_read_back(tmp_path):
    values = {"a": ["1e5", ".5", "007", "yes", "~", "null", "1_0"], "b": [1e-5, 0.5, 3, None, True, float("inf")]}
    assert read_yaml(write(tmp_path / "a.yaml", to_yaml(values))) == values


def test_numbers_and_words_of_a_file_are_those_of_the_command_line(tmp_path):
    text = "a: [1e-3, 007, 1_000, yes, 12:30:45, 2024-01-01, true, ~, '1e-3']\nb:\nc: &c {x: 1}\nd: {<<: *c, y: 2}\n"
    assert read_yaml(write(tmp_path / "a.yaml", text)) == {
        "a": [1e-3, "007", "1_000", "yes", "12:30:45", "2024-01-01", True, None, "1e-3"],
        "b": None,
        "c": {"x": 1},
        "d": {"x": 1, "y": 2},
    }


def test_a_config_file_is_merged_over_its_base(tmp_path):
    write(tmp_path / "base.yaml", "seed: 1\ntask: {network: {depth: 2, width: 3}}\n")
    path = write(tmp_path / "mine.yaml", "_base_: base.yaml\ntask: {network: {width: 4}}\n")
    assert read_yaml(path) == {"seed": 1, "task": {"network": {"depth": 2, "width": 4}}}


def test_a_section_of_another_type_replaces_that_of_the_base(tmp_path):
    write(tmp_path / "base.yaml", "data: {type: digits, noise: 0.1}\n")
    path = write(tmp_path / "mine.yaml", "_base_: base.yaml\ndata: {type: folder, path: x}\n")
    assert read_yaml(path) == {"data": {"type": "folder", "path": "x"}}


def test_later_bases_go_over_earlier_ones(tmp_path):
    write(tmp_path / "one.yaml", "a: 1\nb: 1\n")
    write(tmp_path / "two.yaml", "b: 2\nc: 2\n")
    path = write(tmp_path / "mine.yaml", "_base_: [one.yaml, two.yaml]\nc: 3\n")
    assert read_yaml(path) == {"a": 1, "b": 2, "c": 3}


def test_a_config_file_in_the_folder_of_the_user_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "base.yaml", "a: 1\n")
    write(tmp_path / "mine.yaml", "_base_: ~/base.yaml\n")
    assert read_yaml("~/mine.yaml") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\n", r"cannot be read \(line 2: .+\)\. Mend it there\.$"),
        ("a: 1\n b: 2\n", r"cannot be read \(line 2: .+\)\."),
        ("a:\n\tb: 2\n", r"cannot be read \(line 2: found character '\\t' that cannot start any token\)"),
        ("a: 1\nb: 2\na: 3\n", r"cannot be read \(line 3: found the key 'a' twice\)"),
        ("a: {b: 1, b: 1}\n", r"cannot be read \(line 1: found the key 'b' twice\)"),
        ("a: *b\n", r"cannot be read \(line 1: found undefined alias 'b'\)"),
        ("a: &a {b: *a}\n", r"cannot be read \(line 1: found unconstructable recursive node\)"),
        ("[a]: 1\n", r"cannot be read \(line 1: found a key that is no text\)"),
        ("a: 1\n---\nb: 1\n", r"cannot be read \(line 2: "),
        ("a: " + "[" * 3000, r"cannot be read \(line 1: found more than 40 levels\)"),
        ("a: " + "9" * 5000, r"cannot be read \("),
        ("a: \0", r"cannot be read \("),
        ("- a\n", r"got a list at its top, expected keys with values\.$"),
        ("3\n", r"got a int at its top, expected keys"),
        ("", r"is empty, expected keys with values\. Write `plugin: <name>` into it\.$"),
        ("_base_: 3\n", r"got _base_ 3, expected a file or a list of files\. Mend it\.$"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, text, line):
    with pytest.raises(PdiffError, match=rf"^config .*mine\.yaml: {line}") as caught:
        read_yaml(write(tmp_path / "mine.yaml", text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("plugin: café\n".encode("latin-1"))
    with pytest.raises(PdiffError, match=r"mine\.yaml: is no UTF-8 text \(byte 11\)\. Save it as UTF-8\.$"):
        read_yaml(tmp_path / "mine.yaml")


@pytest.mark.parametrize("path", ["absent.yaml", "a" * 300 + ".yaml", "\0.yaml"])
def test_a_missing_config_file_is_refused(path):
    with pytest.raises(PdiffError, match=r"^config: got .*, which is no file\. Check the path\.$"):
        read_yaml(path)


def test_a_folder_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(PdiffError, match=r"^config: got .*, which is a folder\. Name a \.yaml file in it\.$"):
        read_yaml(tmp_path)
    with pytest.raises(PdiffError, match=r"^config: got '.*mine\.py', which is no \.yaml file\. Name one that is\.$"):
        read_yaml(write(tmp_path / "mine.py", "a = 1"))


def test_a_base_that_is_missing_or_goes_round_in_a_circle_is_refused(tmp_path):
    path = write(tmp_path / "mine.yaml", "_base_: gone.yaml\n")
    with pytest.raises(PdiffError, match=r"gone\.yaml: is named as _base_ by .*mine\.yaml, and is no file\. Check"):
        read_yaml(path)
    write(tmp_path / "gone.yaml", "_base_: [mine.yaml]\n")
    with pytest.raises(PdiffError, match=r"mine\.yaml: has itself as _base_, by way of .*gone\.yaml\. Take one of"):
        read_yaml(path)


def test_a_config_file_never_runs_code(tmp_path):
    for text in ("!!python/object/apply:os.mkdir [PROOF]", "!!python/name:os.mkdir", "!!binary aGk="):
        path = write(tmp_path / "mine.yaml", f"a: {text}\n".replace("PROOF", str(tmp_path / "proof")))
        with pytest.raises(PdiffError, match=r"line 1: found the tag 'tag:yaml\.org,2002:.*', and none is read"):
            read_yaml(path)
    assert os.listdir(tmp_path) == ["mine.yaml"]
