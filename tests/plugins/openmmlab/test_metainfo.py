"""Classes and palettes as configs have them."""

import pytest
from pdiff_plugins.openmmlab.metainfo import check_metainfo, plain_datasets

from pdiff import PdiffError


@pytest.mark.parametrize(
    "metainfo",
    [
        {},
        {"classes": ("cat",)},
        {"classes": ["cat", "dog"], "palette": [(220, 20, 60), [0, 0, 1]]},
        {"classes": ["cat"], "palette": None},
        {"classes": ["cat"], "palette": "random"},
        {"classes": ["cat"], "palette": []},
    ],
)
def test_names_and_colours_pass(metainfo):
    check_metainfo(metainfo, "train")


def test_file_with_a_name_a_line_passes(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    check_metainfo({"classes": str(tmp_path / "classes.txt")}, "train")


@pytest.mark.parametrize(
    ("metainfo", "line"),
    [
        (
            {"classes": "digit"},
            "classes of the data set of test: got the text 'digit', which is no file, expected a li",
        ),
        ({"classes": None}, "classes of the data set of test: got None, expected some names, each once. Mend it."),
        ({"classes": 3}, "classes of the data set of test: got 3, expected some names, each once. Mend it."),
        (
            {"classes": [["a"]]},
            "classes of the data set of test: got [['a']], expected some names, each once. Mend it.",
        ),
        ({"classes": ()}, "classes of the data set of test: got [], expected some names, each once. Mend it."),
        (
            {"classes": ["a", "b", "a"]},
            "classes of the data set of test: got ['a', 'b', 'a'], expected some names, each",
        ),
        (
            {"palette": "red"},
            "palette of the data set of test: got the text 'red', expected a list of colours. Write [[",
        ),
        ({"palette": (220, 20, 60)}, "palette of the data set of test: got [220, 20, 60], expected a colour for each"),
    ],
)
def test_what_is_neither_is_refused(metainfo, line):
    with pytest.raises(PdiffError) as caught:
        check_metainfo(metainfo, "test")
    assert str(caught.value).startswith(f"task.model.config: metainfo.{line}")


@pytest.mark.parametrize("metainfo", ["digit", 3])
def test_metainfo_that_is_no_section_is_refused(metainfo):
    with pytest.raises(PdiffError, match=rf"metainfo of the data set of test: got {metainfo!r}, expected a section\."):
        check_metainfo(metainfo, "test")


def test_forgotten_comma_is_shown_where_it_belongs():
    with pytest.raises(PdiffError, match=r"Write \['digit'\], or in Python \('digit',\), with the comma\.$"):
        check_metainfo({"classes": "digit"}, "test")


def test_plain_data_sets_are_found_in_wrappers():
    inner = [{"type": "a"}, {"type": "b"}]
    wrapped = {"type": "RepeatDataset", "dataset": {"type": "ConcatDataset", "datasets": inner}}
    assert list(plain_datasets(wrapped)) == inner
    assert list(plain_datasets(inner[0])) == inner[:1]


@pytest.mark.parametrize("key", ["classes", "palette"])
def test_text_is_refused_before_any_training(refused, case, key):
    line = refused(case, {f"task.model.options.train_dataloader.dataset.metainfo.{key}": "digit"})
    assert line.startswith(f"error: task.model.config: metainfo.{key} of the data set of train: got the text 'digit', ")
