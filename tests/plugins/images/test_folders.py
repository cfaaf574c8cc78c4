"""What in a folder of class folders is an image, which class it has, and what is said of the rest."""

import pytest
from pdiff_plugins.images.decoding import Decoder
from pdiff_plugins.images.folders import check_classes, find_images, notes, ordered

from pdiff import PdiffError


@pytest.fixture
def part(tmp_path):
    """Return a function that writes empty files of a part and finds its images."""

    def write(*names: str, name: str = "train"):
        for path in (tmp_path / name / file for file in ("cat/0.png", "dog/0.png", *names)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return find_images(tmp_path / name)

    return write


def found(part) -> dict[str, list[str]]:
    """Return the images of each class, below the part."""
    return {name: [file.removeprefix(f"{part.folder}/") for file in files] for name, files in part.files.items()}


def said(*parts, order="name") -> list[str]:
    """Return what is said of parts."""
    return list(notes(parts, ordered(list(parts[0].files), order), order, Decoder()))


PLAIN = {"cat": ["cat/0.png"], "dog": ["dog/0.png"]}


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints/0.png", ".git/0.png", "@eaDir/0.png", "__MACOSX/0.png", ".DS_Store", "Thumbs.db"),
        *("cat/.ipynb_checkpoints/0.png", "cat/@eaDir/0.png", "cat/__MACOSX/._0.png", "cat/._0.png", "cat/Thumbs.db"),
        *("cat/.hidden.png", "$RECYCLE.BIN/0.png", "desktop.ini"),
    ],
)
def test_hidden_files_and_folders_are_left_out_and_said(part, name):
    made = part(name)
    assert found(made) == PLAIN
    (line,) = said(made)
    assert line.startswith("1 hidden files and folders are left out (train/")


def test_hidden_ones_of_all_parts_are_said_in_one_line(part):
    parts = [part(".git/a", "cat/._0.png", "dog/@eaDir/0.png"), part(".git/a", name="test")]
    expected = "train/.git, train/cat/._0.png, train/dog/@eaDir and 1 more"
    assert said(*parts) == [f"4 hidden files and folders are left out ({expected})"]


def test_files_that_are_no_images_of_a_class_are_left_out_and_said(part):
    made = part("labels.csv", "0.png", "cat/notes.txt", "dog/0.heic")
    assert found(made) == PLAIN
    assert said(made) == [
        "4 files that are no images of a class are left out (train/0.png, train/cat/notes.txt, train/dog/0.heic and 1 "
        "more)"
    ]


def test_suffixes_may_be_in_capital_letters(part):
    assert found(part("cat/1.PNG", "cat/2.JPEG", "cat/3.Tif"))["cat"] == [
        f"cat/{n}" for n in ("0.png", "1.PNG", "2.JPEG", "3.Tif")
    ]


def test_images_in_folders_below_a_class_folder_belong_to_the_class(part):
    made = part("cat/b/1.png", "cat/a/c/2.png", "cat/a/1.png")
    assert found(made)["cat"] == ["cat/0.png", "cat/a/1.png", "cat/a/c/2.png", "cat/b/1.png"]
    (line,) = said(made)
    assert (
        line == "images in 3 folders below class folders belong to the class (train/cat/a, train/cat/a/c, train/cat/b)"
    )


@pytest.mark.parametrize("link", ["cat/again", "cat/below/again"])
def test_link_to_images_that_the_class_has_is_refused(part, tmp_path, link):
    part("cat/below/0.png")
    (tmp_path / "train" / link).symlink_to(tmp_path / "train" / "cat")
    with pytest.raises(PdiffError, match=rf"^task\.data\.path: got .*{link}, a link to .*/train/cat, whose images"):
        find_images(tmp_path / "train")


def test_class_folder_may_be_a_link(part, tmp_path):
    part()
    (tmp_path / "train" / "dog").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    assert found(find_images(tmp_path / "train")) == PLAIN


def test_classes_that_differ_in_capital_letters_alone_are_said(part):
    assert said(part("Cat/0.png")) == ["the classes Cat, cat differ in capital letters or blanks alone"]


@pytest.mark.parametrize("name", ["eel/a.txt", "eel/.hidden.png", "eel/@eaDir/0.png", "eel/below/a.txt"])
def test_class_folder_without_images_is_refused_by_name(part, name):
    with pytest.raises(PdiffError, match=r"^task\.data\.path: the class folders without an image in .*/train are eel"):
        part(name)


def test_folder_without_class_folders_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    with pytest.raises(
        PdiffError, match=r"^task\.data\.path: got no folder in .*, expected one for each class\. Put the"
    ):
        find_images(tmp_path)


def test_classes_that_differ_are_named(part):
    one, other = part("eel/0.png", "fox/0.png"), part("Eel/0.png", name="test")
    line = (
        r"^task\.data\.path: got the classes eel, fox in train/ alone and Eel in test/ alone, expected the same in both"
    )
    with pytest.raises(PdiffError, match=line):
        check_classes(one, other)
    check_classes(one, one)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0", "1", "10", "11", "2"], ["0", "1", "2", "10", "11"]),
        (["class1", "class10", "class2"], ["class1", "class2", "class10"]),
        (["-1", "10", "9", "cat"], ["9", "10", "-1", "cat"]),
        (["1", "01", "001"], ["1", "01", "001"]),
    ],
)
def test_numbers_in_names_are_sorted_as_numbers(names, expected):
    assert ordered(names, "number") == expected
    assert ordered(names, "name") == sorted(names)


def test_order_by_name_is_said_where_numbers_would_be_in_another(part):
    words = "the labels 0, 1, 2, ... are the classes 10, 9, cat, dog, by name; task.data.order=number puts 2 before 10"
    assert said(part("9/0.png", "10/0.png")) == [words]


def test_order_that_is_chosen_is_said(part):
    made = part()
    assert said(made, order="number") == ["the labels 0, 1, 2, ... are the classes cat, dog, by number"]
    assert said(made, order=["dog", "cat"]) == ["the labels 0, 1, 2, ... are the classes dog, cat, as given"]
    assert said(made) == []


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("numbr", r"got 'numbr'\. Did you mean 'number'\? Known: name, number\. Or list the classes"),
        (["cat"], "lacks 'dog', expected each of cat, dog once"),
        (["cat", "dog", "eel"], "got 'eel', which is no class folder or stands there twice"),
        (["cat", "dog", "cat"], "got 'cat', which is no class folder or stands there twice"),
    ],
)
def test_order_that_is_none_is_refused(order, words):
    with pytest.raises(PdiffError, match=rf"^task\.data\.order: {words}"):
        ordered(["cat", "dog"], order)
