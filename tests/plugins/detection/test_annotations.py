"""Records of COCO files as tools write them: what is refused, in which words, and what mmdet leaves out."""

import copy
import gzip
import json

import pytest
from pdiff_plugins.detection.annotations import is_mask, left_out, read_coco, sticks_out

from pdiff import PdiffError

DELETE = object()


def content() -> dict:
    """Return sound annotations of two images."""
    rows = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200} for n in range(1, 5)
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in (1, 2)],
        "annotations": rows,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file, and returns its path."""

    def to(value) -> str:
        path = tmp_path / "train.json"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return str(path)

    return to


def refused(path: str) -> str:
    """Return what a file is refused with, behind its name."""
    with pytest.raises(PdiffError) as caught:
        read_coco(path)
    line = str(caught.value)
    assert line.startswith(f"task.data: {path}: ")
    assert "\n" not in line
    return line.removeprefix(f"task.data: {path}: ")


def changed(key: str, index: int, **values) -> dict:
    """Return annotations with other values in a record."""
    made = content()
    for name, value in values.items():
        if value is DELETE:
            del made[key][index][name]
        else:
            made[key][index][name] = value
    return made


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (gzip.compress(b"{}", mtime=0), "is compressed (gzip), expected JSON. Unpack it."),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark. Save it as UTF-8 without one."),
        (b"", "is no JSON (JSONDecodeError: Expecting value: line 1 column 1 (char 0), it begins with b'')."),
        (b"version https://git-lfs.github.com/spec/v1", "begins with b'version https://git-lfs.'). Give a COCO file."),
        (b"<!DOCTYPE html>", "it begins with b'<!DOCTYPE html>'). Give a COCO file."),
        ("{}".encode("utf-16"), "is no JSON (UnicodeDecodeError: "),
        (b"[" * 100_000, "is no JSON (RecursionError: "),
        (b'{"images": [', "is no JSON (JSONDecodeError: Expecting value: line 1 column 13"),
        ([], "holds a list, expected an object with images, annotations and categories. Give the annotations, not the"),
        ({}, "has no 'images', expected a list."),
        ({**content(), "annotations": {}}, "got dict as 'annotations', expected a list."),
        ({**content(), "categories": None}, "got NoneType as 'categories', expected a list."),
    ],
)
def test_file_that_is_no_coco_file_is_named_for_what_it_is(write, value, line):
    assert line in refused(write(value))


@pytest.mark.parametrize(
    ("key", "index", "values", "line"),
    [
        ("annotations", 2, {"id": DELETE}, "annotations[2]: has no 'id'. Number the records from 1 on."),
        ("annotations", 2, {"id": 1}, "annotations[2], id 1: got the id 1 of another record, expected one of its own."),
        ("annotations", 2, {"id": None}, "annotations[2], id None: got None as 'id', expected a number or a text."),
        ("annotations", 2, {"id": True}, "annotations[2], id True: got True as 'id', expected a number or a text."),
        ("images", 1, {"id": 1}, "images[1], id 1: got the id 1 of another record, expected one of its own."),
        ("images", 1, {"id": 1.0}, "images[1], id 1.0: got the id 1.0 of another record"),
        ("images", 1, {"id": [2]}, "images[1], id [2]: got [2] as 'id', expected a number or a text."),
        ("images", 1, {"id": float("nan")}, "images[1], id nan: got nan as 'id', expected a number or a text."),
        ("images", 0, {"file_name": DELETE}, "images[0], id 1: has no 'file_name'. Give the path of the image below"),
        ("images", 0, {"file_name": 3}, "images[0], id 1: got 3 as 'file_name', expected a text that can be the na"),
        ("images", 0, {"file_name": "a\0.png"}, "images[0], id 1: got 'a\\x00.png' as 'file_name', expected a text"),
        ("images", 0, {"file_name": "\ud800"}, "images[0], id 1: got '\\ud800' as 'file_name', expected a text that"),
        ("images", 0, {"width": DELETE}, "images[0], id 1: has no 'width'. Give the width of the image in pixels."),
        ("images", 1, {"height": "48"}, "images[1], id 2: got '48' as 'height', expected a number above 0."),
        ("images", 1, {"height": 0}, "images[1], id 2: got 0 as 'height', expected a number above 0."),
        ("categories", 1, {"id": 1}, "categories[1], id 1: got the id 1 of another record"),
        ("categories", 1, {"name": DELETE}, "categories[1], id 2: has no 'name'. Name the category."),
        (
            "categories",
            1,
            {"name": "cat"},
            "categories[1], id 2: got the name 'cat' of the category with the id 1, exp",
        ),
        ("annotations", 3, {"image_id": DELETE}, "annotations[3], id 4: has no 'image_id'. Give the id of an image of"),
        ("annotations", 3, {"image_id": 9}, "id 4: got 9 as 'image_id', which is the id of none of the images. Give"),
        ("annotations", 3, {"image_id": "1"}, "none of the images; 1 is there: texts and numbers differ. Give the id"),
        ("annotations", 3, {"category_id": 0}, "id 4: got 0 as 'category_id', which is the id of none of the categ"),
        ("annotations", 3, {"category_id": DELETE}, "id 4: has no 'category_id'. Give the id of a category of the f"),
        ("annotations", 3, {"category_id": None}, "id 4: got None as 'category_id', expected the id of one of the"),
        (
            "annotations",
            0,
            {"bbox": DELETE, "segmentation": [[0, 0, 5, 0, 5, 5]]},
            "id 1: has no 'bbox'. Give [x, y, w",
        ),
        ("annotations", 0, {"bbox": [1, 2, 3]}, "id 1: got [1, 2, 3] as 'bbox', expected four finite numbers. Give [x"),
        ("annotations", 0, {"bbox": [1, 2, 3, float("nan")]}, "id 1: got [1, 2, 3, nan] as 'bbox', expected four fini"),
        ("annotations", 0, {"bbox": [1, 2, float("inf"), 1]}, "id 1: got [1, 2, inf, 1] as 'bbox', expected four fini"),
        ("annotations", 0, {"bbox": ["1", 2, 3, 4]}, "id 1: got ['1', 2, 3, 4] as 'bbox', expected four finite num"),
        ("annotations", 0, {"bbox": [1, 2, 10**400, 4]}, "as 'bbox', expected four finite numbers."),
        ("annotations", 0, {"bbox": {}}, "id 1: got {} as 'bbox', expected four finite numbers."),
        ("annotations", 0, {"bbox": [9, 9, -3, 4]}, "id 1: got [9, 9, -3, 4] as 'bbox', expected no width and no heig"),
        (
            "annotations",
            1,
            {"area": DELETE},
            "annotations[1], id 2: has no 'area'. Give the area of the object in pixe",
        ),
        ("annotations", 1, {"area": None}, "annotations[1], id 2: got None as 'area', expected a number from 0 on."),
        ("annotations", 1, {"area": -4}, "annotations[1], id 2: got -4 as 'area', expected a number from 0 on."),
        ("annotations", 1, {"area": float("nan")}, "annotations[1], id 2: got nan as 'area', expected a number from 0"),
        ("annotations", 1, {"iscrowd": "0"}, "annotations[1], id 2: got '0' as 'iscrowd', expected 0 or 1. Give 0, or"),
        ("annotations", 1, {"iscrowd": None}, "annotations[1], id 2: got None as 'iscrowd', expected 0 or 1."),
    ],
)
def test_record_that_cannot_mean_what_it_says_is_refused_with_key_and_id(write, key, index, values, line):
    assert line in refused(write(changed(key, index, **values)))


def test_record_that_is_no_object_is_refused(write):
    assert refused(write({**content(), "annotations": [3]})) == "annotations[0]: got 3, expected an object."


def test_other_records_with_problems_are_counted(write):
    made = content()
    for row in made["annotations"]:
        del row["area"]
    assert refused(write(made)).endswith("width times height. 3 more records have problems.")


@pytest.mark.parametrize(
    "ids", [(0, 1), ("a", "b"), ("1", "2"), (1.0, 2.0), (-1, -2), (10**25, 10**25 + 1), (7, "7")], ids=str
)
@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_ids_of_every_kind_are_taken(write, key, ids):
    made = content()
    made["annotations"] = made["annotations"][:2]
    new = {record["id"]: number for record, number in zip(made[key], ids, strict=True)}
    field = {"images": "image_id", "categories": "category_id", "annotations": "id"}[key]
    for record in made[key]:
        record["id"] = new[record["id"]] if key != "annotations" else record["id"]
    for row in made["annotations"]:
        row[field] = new[row[field]]
    assert read_coco(write(made)) == made


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, None),
        ({"bbox": [-5, -5, 20, 10]}, None),
        ({"bbox": [60, 5, 20, 10]}, None),
        ({"bbox": [5, 5, 0, 10]}, "without an area"),
        ({"bbox": [5, 5, 0.5, 10]}, "without an area"),
        ({"area": 0}, "without an area"),
        ({"bbox": [64, 5, 20, 10]}, "outside their image"),
        ({"bbox": [5, -10, 20, 10]}, "outside their image"),
        ({"ignore": 1}, "marked ignore"),
        ({"category_id": 2}, "of other categories"),
    ],
)
def test_objects_that_mmdet_leaves_out_are_counted_with_the_reason(write, detector, values, why):
    from mmdet.datasets import CocoDataset

    made = changed("annotations", 0, **values)
    assert left_out(made, ["cat"]) == ({None: 3, why: 1} if why else {None: 4})
    settings = {"data_prefix": {"img": ""}, "pipeline": [], "test_mode": True, "serialize_data": False}
    dataset = CocoDataset(ann_file=write(made), metainfo={"classes": ["cat"]}, **settings)
    assert sum(len(info["instances"]) for info in map(dataset.get_data_info, range(2))) == (3 if why else 4)


def test_box_that_reaches_beyond_its_image_is_seen():
    image = content()["images"][0]
    row = {"bbox": [0, 0, 64, 48]}
    assert not sticks_out(row, image)
    for box in ([-2, 0, 9, 9], [0, -2, 9, 9], [60, 0, 6, 9], [0, 40, 9, 10]):
        assert sticks_out({"bbox": box}, image)


@pytest.mark.parametrize(
    ("mask", "sound"),
    [
        ([[5, 5, 25, 5, 25, 15]], True),
        ([[5, 5, 25, 5, 25, 15], [1]], True),  # mmdet leaves short polygons out
        ({"size": [48, 64], "counts": [1000, 72, 2000]}, True),
        ({"size": [48, 64], "counts": "PPYo1"}, True),
        ([5, 5, 25, 5, 25, 15], False),
        ([["5"] * 6], False),
        ([[float("nan")] * 6], False),
        ([None], False),
        ({"size": [64, 48], "counts": [3072]}, False),
        ({"size": [48, 64], "counts": [5]}, False),
        ({"size": [48, 64], "counts": [-5, 3077]}, False),
        ({"size": [48, 64], "counts": [3072.0]}, False),
        ({"size": [48, 64]}, False),
        ({"counts": [3072]}, False),
        ("x", False),
        (3, False),
    ],
)
def test_mask_is_polygons_or_a_code_of_the_size_of_its_image(mask, sound):
    assert is_mask(mask, {"width": 64, "height": 48}) == sound


def test_sound_content_comes_back_unchanged(write):
    made = content()
    made["annotations"][0] |= {"iscrowd": 1, "segmentation": [], "score": None}
    assert read_coco(write(made)) == copy.deepcopy(made)
