"""What is refused of a split's annotations, and what is said of them, before mmdet reads them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pdiff import PdiffError

pytest.importorskip("mmdet")

BOXES = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}, {"type": "PackDetInputs"}]
MASKS = [BOXES[0], {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}, BOXES[2]]


def content(images: int = 3) -> dict:
    """Return sound annotations, one cat in every image."""
    row = {"category_id": 1, "bbox": [5, 5, 20, 10], "area": 200, "iscrowd": 0}
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(images)],
        "annotations": [{"id": n, "image_id": n, **row} for n in range(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def dataset(detector, tmp_path):
    """Return a function that writes annotations and their images, and returns a data set of mmdet, unread."""
    from mmdet.datasets import CocoDataset

    def build(made: dict, name: str = "train", kind: type = CocoDataset, **settings):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
        for image in made["images"]:
            if not (tmp_path / name / image["file_name"]).exists():
                Image.new("RGB", (64, 48)).save(tmp_path / name / image["file_name"])
        own = {"data_root": str(tmp_path), "ann_file": f"{name}.json", "data_prefix": {"img": f"{name}/"}}
        own |= {"metainfo": {"classes": ("cat", "dog")}, "pipeline": BOXES, "lazy_init": True, "serialize_data": False}
        with detector.library.scope():
            return kind(**{**own, **settings})

    return build


@pytest.fixture
def check():
    """Return a check that has seen nothing yet."""
    from pdiff_plugins.detection.check import AnnotationCheck

    return AnnotationCheck()


def line_of(check, dataset, name: str = "train") -> str:
    """Return the line that refuses a data set."""
    with pytest.raises(PdiffError) as caught:
        check(dataset, name)
    return str(caught.value)


def test_sound_annotations_pass_without_a_word(check, dataset, caplog):
    check(dataset(content()), "train")
    assert caplog.text == ""


def test_unsound_record_is_refused_with_the_file(check, dataset, tmp_path):
    made = content()
    del made["annotations"][1]["area"]
    line = line_of(check, dataset(made))
    assert line.startswith(f"task.data: {tmp_path}/train.json: annotations[1], id 1: has no 'area'. Give the area")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filter_cfg": {"filter_empty_gt": True}}, "of 3 images mmdet leaves out 1 without an object and 0 that are"),
        ({"filter_cfg": {"min_size": 50}}, "of 3 images mmdet leaves out 0 without an object and 3 that are too small"),
        ({"metainfo": {"classes": ("cat",)}}, "of 4 objects mmdet leaves out 1 of other categories"),
        ({"metainfo": {"classes": ("dog", "cat")}}, "metainfo.classes are in another order than the categories, whose"),
    ],
)
def test_what_mmdet_leaves_out_is_said_once_for_each_file(check, dataset, caplog, tmp_path, changes, words):
    made = content()
    made["annotations"][2]["image_id"] = 1
    made["annotations"].append({**made["annotations"][0], "id": 9, "category_id": 2})
    built = dataset(made, **changes)
    for name in ("train", "seen"):
        check(built, name)
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert caplog.records[0].message.startswith(f"task.data: {tmp_path}/train.json: {words}")


def test_filter_is_that_of_mmdet(check, dataset, caplog):
    made = content(6)
    made["annotations"] = made["annotations"][:3]
    made["annotations"][2]["category_id"] = 2
    made["images"][0] |= {"width": 20, "height": 20, "file_name": "small.png"}
    built = dataset(content(1))  # makes the folder
    Image.new("RGB", (20, 20)).save(Path(built.data_prefix["img"]) / "small.png")
    rules = {"filter_empty_gt": True, "min_size": 32}
    built = dataset(made, metainfo={"classes": ("cat",)}, filter_cfg=rules)
    check(built, "train")
    assert "of 6 images mmdet leaves out 4 without an object and 1 that are too small (filter_cfg)" in caplog.text
    built.full_init()
    assert len(built) == 1


@pytest.mark.parametrize(("name", "counts"), [("train", False), ("test", True)])
def test_objects_that_mmdet_leaves_out_of_training_but_not_of_the_precision_are_said(
    check, dataset, caplog, name, counts
):
    made = content()
    made["annotations"][0]["bbox"] = [5, 5, 0, 10]
    made["annotations"][1]["bbox"] = [90, 5, 10, 10]
    check(dataset(made), name)
    assert "of 3 objects mmdet leaves out 1 without an area, 1 outside their image" in caplog.text
    assert ("image; they count as objects in AP all the same, as in mmdet" in caplog.text) == counts
    assert "1 of 3 boxes reach beyond their image (a box is x, y, width, height)" in caplog.text


@pytest.mark.parametrize(("classes", "lack"), [(("cat", "dog", "eel"), "'eel'"), ((1, 2), "1, 2")])
def test_class_that_the_file_has_not_is_named(check, dataset, classes, lack):
    line = line_of(check, dataset(content(), metainfo={"classes": classes}))
    assert f"have not the categories {lack} of metainfo.classes (" in line
    assert "but 'cat', 'dog'. " in line
    remedy = (
        "Give those of the data as task.model.classes." if len(classes) == 2 else "List all in every file, in one ord"
    )
    assert remedy in line


def test_files_that_list_the_classes_in_another_order_are_refused_whatever_their_ids(check, dataset):
    other = content()
    for category, name in zip(other["categories"], ("dog", "cat"), strict=True):
        category["name"] = name
    check(dataset(content()), "train")
    line = line_of(check, dataset(other, "test"), "test")
    assert line.startswith("task.data: the annotations of test and train list the classes in another order. mmdet num")


@pytest.mark.parametrize("exif", [None, 6])
def test_size_that_the_image_has_not_is_refused(check, dataset, tmp_path, exif):
    built = dataset(content())
    turned = Image.Exif()
    turned[0x0112] = exif or 1
    Image.new("RGB", (64, 48) if exif else (32, 24)).save(tmp_path / "train" / "1.png", exif=turned)
    size = "48 x 64" if exif else "32 x 24"
    words = f"got 64 x 48 as 'width' and 'height', expected {size}, the size of {tmp_path}/train/1.png"
    assert line_of(check, built).startswith(f"task.data: {tmp_path}/train.json: images[1], id 1: {words}")


@pytest.mark.parametrize("damage", [b"", b"<html>"])
def test_image_that_is_none_is_refused_by_name(check, dataset, tmp_path, damage):
    built = dataset(content())
    (tmp_path / "train" / "2.png").write_bytes(damage)
    assert line_of(check, built).startswith(f"task.data: {tmp_path}/train/2.png: cannot be read as an image (")


def test_of_many_images_some_are_looked_at_evenly_spaced(check, dataset, tmp_path, monkeypatch):
    from pdiff_plugins.detection import check as module

    monkeypatch.setattr(module, "SIZES", 4)
    built = dataset(content(7))
    for number in (1, 3, 5):
        (tmp_path / "train" / f"{number}.png").write_bytes(b"")
    check(built, "train")
    (tmp_path / "train" / "4.png").write_bytes(b"")
    assert "train/4.png: cannot be read" in line_of(module.AnnotationCheck(), built)


@pytest.mark.parametrize("masks", [True, False])
def test_object_without_a_mask_is_refused_where_masks_are_loaded(check, dataset, masks):
    made = content()
    for row in made["annotations"][:2]:
        row["segmentation"] = [[5, 5, 25, 5, 25, 15]]
    built = dataset(made, pipeline=MASKS if masks else BOXES)
    if masks:
        line = line_of(check, built)
        assert "annotations[2], id 2: has no 'segmentation', but the pipeline loads masks." in line
    else:
        check(built, "train")


def test_mask_that_is_none_is_refused_where_masks_are_loaded(check, dataset):
    made = content()
    for row in made["annotations"]:
        row["segmentation"] = {"size": [64, 48], "counts": [3072]}
    line = line_of(check, dataset(made, pipeline=MASKS))
    assert "annotations[0], id 0: got {'size': [64, 48], 'counts': [3072]} as 'segmentation', expected polygons" in line


@pytest.mark.parametrize(
    ("values", "lacks"), [({"id": "b"}, "integers as ids"), ({"iscrowd": None}, "'iscrowd'"), ({"id": 7}, None)]
)
def test_validation_by_mmdet_asks_for_more(check, dataset, values, lacks):
    from pdiff_plugins.detection.check import AnnotationCheck

    made = content()
    made["annotations"][1] = {k: v for k, v in (made["annotations"][1] | values).items() if v is not None}
    check(dataset(made), "train")
    if lacks:
        line = line_of(AnnotationCheck(validated=True), dataset(made))
        assert f"mmdet's validation needs {lacks}. Give them, or collect.train.validate=false." in line
    else:
        AnnotationCheck(validated=True)(dataset(made), "train")


def test_data_set_that_reads_its_file_otherwise_is_left_alone(check, dataset):
    from mmdet.datasets import CocoPanopticDataset

    check(dataset({"images": [], "nothing": 1}, kind=CocoPanopticDataset), "train")


def test_file_that_is_not_there_is_left_to_mmdet(check, dataset, tmp_path):
    built = dataset(content())
    (tmp_path / "train.json").unlink()
    check(built, "train")
