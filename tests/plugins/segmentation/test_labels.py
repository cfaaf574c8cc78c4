"""Label maps that are sound or not, and what is said of their pixels."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pdiff import PdiffError

pytest.importorskip("mmseg")


@pytest.fixture(scope="module")
def module(cases):
    """Return the module, which can be imported once mmseg's operators are there."""
    cases("segmentation")
    from pdiff_plugins.segmentation import labels

    return labels


def maps(*labels: int, dtype=np.uint8) -> np.ndarray:
    """Return a label map in which some labels are, and no other."""
    return np.resize(np.array(labels, dtype), (6, 8))


@pytest.fixture
def check(module, dataset):
    """Return a function that checks the label maps of a data set and returns the line that refuses them, or None."""
    from pdiff_plugins.openmmlab.data import Split

    def line(made=None, **settings) -> str | None:
        try:
            module.check_splits({"test": Split(made or dataset(**settings), {})})
        except PdiffError as error:
            return str(error)
        return None

    return line


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (maps(0, 1, 2), {}),
        (maps(0, 1, 2, 255), {}),
        (maps(0, 1, 2, 11), {"ignore_index": 11}),
        (maps(0, 1, 2, 3, 255), {"reduce_zero_label": True}),
        (maps(0, 1, 2, 255, dtype=np.uint16), {}),
        (maps(0, 1, 2, 3, 149, 255), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": False}),
        (maps(0, 1, 2, 3, 149, 255), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": True}),
    ],
    ids=["classes", "ignored", "other ignored", "reduced", "wide", "some classes", "some, reduced"],
)
def test_sound_label_map_passes(write, check, tmp_path, labels, settings):
    write(tmp_path, labels)
    assert check(**settings) is None


def test_last_class_of_a_data_set_that_is_reduced_and_from_which_classes_are_left_out_passes(write, check, tmp_path):
    write(tmp_path, maps(0, 1, 2, 3, 150, 255))  # as ADE20K has it: 0 for none, 150 for the last
    assert check(ade20k=True, classes=["sky", "wall"], reduce_zero_label=True) is None


def test_image_whose_every_pixel_is_ignored_passes_beside_another(write, check, tmp_path):
    write(tmp_path, maps(255))
    write(tmp_path, maps(0, 1), "b.png")
    assert check() is None


@pytest.mark.parametrize(("label", "zero"), [(255, ""), (0, ", or 0, by reduce_zero_label")])
def test_split_without_a_pixel_that_counts_is_refused(write, check, tmp_path, label, zero):
    write(tmp_path, maps(label))
    line = check(reduce_zero_label=not label)
    assert line.startswith(f"task.data: every pixel of test is ignored (255{zero}). Give label maps with classes in")


def test_label_map_with_a_palette_passes(write, check, tmp_path):
    write(tmp_path, maps(0, 1, 2))
    coloured = Image.frombytes("P", (8, 6), maps(0, 1, 2).tobytes())
    coloured.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    coloured.save(tmp_path / "labels" / "a.png")
    assert check() is None


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (maps(0, 1, 3), {}, "has the label 3, expected 0 to 2 or 255, which is ignored. Mend it, or set classes"),
        (maps(0, 1, 255, 254), {}, "has the label 254, expected 0 to 2 or 255"),
        (maps(0, 256, dtype=np.uint16), {}, "has the label 256, expected 0 to 2"),  # mmseg would read a 0
        (maps(0, 7), {"ignore_index": 11}, "has the label 7, expected 0 to 2 or 11"),
        (maps(0, 1, 4), {"reduce_zero_label": True}, "has the label "),
        (maps(0, 151), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": False}, "has the label 151"),
        (np.zeros((8, 6), np.uint8), {}, "has the size (8, 6), expected (6, 8), that of its image"),
        (np.zeros((6, 8, 3), np.uint8), {}, "has 3 channels (red, green and blue), expected one label for each pixel."),
        (np.zeros((6, 8, 4), np.uint8), {}, "has 4 channels (red, green, blue and alpha), expected one label for each"),
        (np.zeros((6, 8, 2), np.uint8), {}, "has 2 channels (grey and alpha), expected one label for each pixel. Wri"),
    ],
    ids=["one too many", "beside ignored", "wide", "other ignored", "reduced", "some classes", "turned", *"abc"],
)
def test_unsound_label_map_is_refused(write, check, tmp_path, labels, settings, words):
    write(tmp_path, maps(0))
    write(tmp_path, labels, "b.png")
    assert check(**settings).startswith(f"task.data: {tmp_path}/labels/b.png {words}")


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (
            maps(0, 255),
            {"ignore_index": 11},
            "has the label 255, expected 0 to 2 or 11, which is ignored. Write 1 for 25",
        ),
        (
            maps(0, 1, 7, 128, 254, 255),
            {},
            "has the label 7, as 2 others, expected 0 to 2 or 255, which is ignored. Mend",
        ),
    ],
)
def test_mask_in_black_and_white_and_what_jpeg_made_of_one_are_told_apart(
    write, check, tmp_path, labels, settings, words
):
    write(tmp_path, labels)
    line = check(**settings)
    assert line.startswith(f"task.data: {tmp_path}/labels/a.png {words}")
    assert line.endswith("come from saving as JPEG, or from resizing.") == (len(np.unique(labels)) > 2)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((6, 8), 1, np.int32), None),
        (np.full((6, 8), -1, np.int32), "has the label -1, expected 0 to 2 or 255, which is ignored."),
        (np.full((6, 8), 0.5, np.float32), "holds fractions, expected labels. Write whole numbers, in 8 bits."),
        (np.full((6, 8), np.nan, np.float32), "holds fractions, expected labels."),
    ],
)
def test_label_map_of_integers_and_of_floats(write, check, tmp_path, pixels, words):
    write(tmp_path, maps(0, 1, 2), "b.tif")
    write(tmp_path, np.zeros((6, 8), np.uint8), "a.tif")
    Image.fromarray(pixels).save(tmp_path / "labels" / "a.tif")
    line = check(img_suffix=".tif", seg_map_suffix=".tif")
    assert line is None if words is None else line.startswith(f"task.data: {tmp_path}/labels/a.tif {words}")


def test_one_bit_is_the_labels_zero_and_one(write, check, tmp_path):
    write(tmp_path, maps(0, 1) > 0)
    assert check() is None


def test_split_of_one_class_is_refused_with_what_is_ignored(write, check, tmp_path):
    write(tmp_path, maps(0, 255))
    assert check(classes=("background", "digit")) == (
        "task.data: every pixel of test that counts is of the class 'background'; the others, 50%, are ignored (255), "
        f"expected several classes, in {tmp_path}/labels/a.png say. In masks of 0 and 255, write 1 for 255; or set "
        "classes, ignore_index and reduce_zero_label in task.model.config."
    )
    write(tmp_path, maps(0, 1))
    line = check(classes=("background", "digit"), reduce_zero_label=True)
    assert "is of the class 'background'; the others, 50%, are ignored (255, or 0, by reduce_zero_label), exp" in line
    write(tmp_path, maps(1))
    assert "every pixel of test that counts is of the class 'tree', expected several classes, in " in check()


def test_classes_without_a_pixel_and_many_ignored_pixels_are_said(write, check, tmp_path, caplog):
    write(tmp_path, maps(0, 1, 2))
    assert check() is None
    assert caplog.text == ""
    write(tmp_path, maps(0, 1, 255, 255, 255, 255))
    assert check() is None
    assert [record.message for record in caplog.records] == [
        "task.data: 67% of the pixels of test are ignored",
        "task.data: no pixel of test is of the classes sky",
    ]


def test_of_many_label_maps_some_are_looked_at_but_none_may_be_missing(
    write, check, module, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(7):
        write(tmp_path, maps(0, 1, 2) if number % 3 == 0 else maps(9), f"{number}.png")
    assert check() is None
    assert "of the 7 label maps of test 3 were looked at, evenly spaced" in caplog.text
    (tmp_path / "labels" / "4.png").unlink()
    assert "images/4.png has no label map" in check()


def test_training_images_that_are_seen_again_are_not_read_again(write, module, dataset, tmp_path):
    from pdiff_plugins.openmmlab.data import Split

    write(tmp_path, maps(0, 1))
    split = Split(dataset(), {})
    assert set(module.check_splits({"train": split, "seen": split})) == {"train"}


def test_label_that_is_named_is_the_one_in_the_file(write, check, tmp_path):
    write(tmp_path, maps(1, 2, 4))
    assert f"{tmp_path}/labels/a.png has the label 4" in check(reduce_zero_label=True)


def test_label_255_is_refused_when_another_one_is_ignored(write, check, tmp_path):
    write(tmp_path, maps(0, 11, 255))
    assert "a.png has the label 255, expected 0 to 2 or 11" in (check(ignore_index=11) or "")


def test_image_without_label_map_is_refused_with_the_path_of_the_missing_one(write, check, tmp_path):
    write(tmp_path, maps(0, 1))
    (tmp_path / "labels" / "a.png").rename(tmp_path / "labels" / "a_labels.png")
    paths = f"{tmp_path}/images/a.png has no label map, expected {tmp_path}/labels/a.png"
    assert check() == f"task.data: the image {paths}. Check data_prefix and seg_map_suffix."
    assert check(seg_map_suffix="_labels.png") is None


def test_image_in_a_hidden_folder_without_label_map_is_refused_with_the_folder(write, check, tmp_path):
    write(tmp_path, maps(0, 1))
    (tmp_path / "images" / ".ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / ".ipynb_checkpoints" / "a.png")
    assert check().endswith(".ipynb_checkpoints/a.png. Take the hidden folder away: mmseg takes its images, too.")


def test_data_set_without_a_folder_of_label_maps_is_refused(write, check, tmp_path):
    write(tmp_path, maps(0))
    assert "data_prefix" in check(data_prefix={"img_path": "images"})


@pytest.mark.parametrize(("kind", "left"), [("images", 0), ("labels", 0), ("labels", 45)])
def test_damaged_file_is_refused_by_its_name(write, check, tmp_path, kind, left):
    write(tmp_path, maps(0, 1, 2))
    path = tmp_path / kind / "a.png"
    path.write_bytes(path.read_bytes()[:left])
    assert check().startswith(f"task.data: {path} cannot be read (")


def test_label_map_of_a_photograph_that_was_held_upright_has_the_size_that_the_network_sees(
    write, check, dataset, tmp_path
):
    write(tmp_path, maps(0, 1).T, "a.jpg")
    Image.fromarray(maps(0, 1).T.copy()).save(tmp_path / "labels" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / "a.jpg", exif=exif)
    seen = dataset(img_suffix=".jpg", pipeline=[{"type": "LoadImageFromFile"}])
    assert seen[0]["ori_shape"] == (8, 6)
    assert check(seen) is None


@pytest.mark.parametrize(("label", "passes"), [(2, True), (3, False)])
def test_data_sets_in_a_wrapper_are_checked_each(write, check, dataset, tmp_path, label, passes):
    from mmengine.dataset import ConcatDataset, RepeatDataset

    write(tmp_path, maps(0, label))
    for made in (ConcatDataset([dataset(), dataset()]), RepeatDataset(dataset(), 2)):
        assert (check(made) is None) == passes


def test_every_split_is_read(write, module, dataset, tmp_path):
    from pdiff_plugins.openmmlab.data import Split

    for name, labels in {"one": maps(0), "two": maps(1), "three": maps(5)}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, labels)
    splits = {name: Split(dataset(data_root=str(tmp_path / name)), {}) for name in ("one", "two", "three")}
    with pytest.raises(PdiffError, match="three/labels/a.png has the label 5"):
        module.check_splits(splits)


def test_chance_is_the_miou_of_calling_everything_the_most_frequent_class(module):
    assert module.chance(np.array([90, 6, 4, 0])) == pytest.approx(0.9 / 3)
    assert module.chance(np.array([7, 0])) == 1
