"""The records of a COCO file: refused where they cannot mean what they say; what mmdet leaves out is counted.

mmdet reads such files without a look: it takes the last of two images with one id, and leaves boxes without an area out
of the training, but not of the AP.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pdiff import PdiffError

KEYS = ("images", "annotations", "categories")
REMEDIES = {
    "id": "Number the records from 1 on.",
    "file_name": "Give the path of the image below data_prefix.",
    "width": "Give the width of the image in pixels.",
    "height": "Give the height of the image in pixels.",
    "name": "Name the category.",
    "image_id": "Give the id of an image of the file.",
    "category_id": "Give the id of a category of the file.",
    "bbox": "Give [x, y, width, height] in pixels.",
    "area": "Give the area of the object in pixels: that of its mask, or width times height.",
    "iscrowd": "Give 0, or 1 for a crowd.",
}
LARGEST = 1e100  # no coordinate is beyond it
NO_AREA, OUTSIDE, IGNORED, OTHERS = "without an area", "outside their image", "marked ignore", "of other categories"

Record = Mapping[str, Any]


def read_coco(path: str) -> dict[str, list]:
    """Return the content of a COCO file with sound records.

    Raises:
        PdiffError: for the first record that is not, with file, key and id, and the number of the others.
    """
    content = parse(path)
    for key in KEYS:
        if not isinstance(content.get(key), list):
            got = f"got {type(content[key]).__name__} as {key!r}" if key in content else f"has no {key!r}"
            line = f"task.data: {path}: {got}, expected a list."
            raise PdiffError(f"{line} Give a COCO file of objects, with images, annotations and categories.")
    wrong = list(problems(content))
    if wrong:
        others = f" {len(wrong) - 1} more records have problems." if len(wrong) > 1 else ""
        raise PdiffError(f"task.data: {path}: {wrong[0]}{others}")
    return content


def parse(path: str) -> dict:
    """Return the JSON object of a file, or raise a `PdiffError` that says what the file is instead."""
    with open(path, "rb") as stream:
        start = stream.read(40)
    if start.startswith(b"\x1f\x8b"):
        raise PdiffError(f"task.data: {path}: is compressed (gzip), expected JSON. Unpack it.")
    if start.startswith(b"\xef\xbb\xbf"):
        raise PdiffError(f"task.data: {path}: begins with a byte order mark. Save it as UTF-8 without one.")
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (ValueError, RecursionError) as error:  # what is no JSON, or no UTF-8
        reason = f"{type(error).__name__}: {error}, it begins with {start[:24]!r}"
        raise PdiffError(f"task.data: {path}: is no JSON ({reason}). Give a COCO file.") from None
    if not isinstance(content, dict):
        got = f"holds a {type(content).__name__}, expected an object with images, annotations and categories"
        raise PdiffError(f"task.data: {path}: {got}. Give the annotations, not the results of a detector.")
    return content


def problems(content: Mapping[str, list]) -> Iterator[str]:
    """Yield what is wrong with the first unsound key of each record."""
    known: dict[str, dict] = {}
    for key in ("images", "categories", "annotations"):
        known[key] = {}
        for index, record in enumerate(content[key]):
            problem = problem_of_id(record, known[key]) or CHECKS[key](record, known)
            if problem:
                name, text = problem
                number = f", id {record['id']!r}" if isinstance(record, Mapping) and "id" in record else ""
                yield f"{key}[{index}]{number}: {text}. {REMEDIES.get(name, '')}".rstrip()


def problem_of_id(record: Any, known: dict) -> tuple[str, str] | None:
    """Return what is wrong with the id of a record, and enter it among those that are known."""
    if not isinstance(record, Mapping):
        return "", f"got {short(record)}, expected an object"
    if "id" not in record:
        return "id", "has no 'id'"
    number = record["id"]
    if not is_id(number):
        return "id", f"got {short(number)} as 'id', expected a number or a text"
    if number in known:
        return "id", f"got the id {number!r} of another record, expected one of its own"
    known[number] = record
    return None


def problem_of_image(image: Record, known: Mapping[str, Collection]) -> tuple[str, str] | None:
    """Return the key of an image that is wrong, and how."""
    if not is_path(image.get("file_name")):
        return "file_name", missing(image, "file_name", "a text that can be the name of a file")
    for key in ("width", "height"):
        if not is_number(image.get(key)) or image[key] <= 0:
            return key, missing(image, key, "a number above 0")
    return None


def problem_of_category(category: Record, known: dict[str, dict]) -> tuple[str, str] | None:
    """Return the key of a category that is wrong, and how."""
    if not is_id(category.get("name")):
        return "name", missing(category, "name", "a text")
    first = known.setdefault("names", {}).setdefault(category["name"], category["id"])
    if first != category["id"]:
        return "", f"got the name {category['name']!r} of the category with the id {first!r}, expected another"
    return None


def problem_of_reference(row: Record, known: Mapping[str, Collection]) -> tuple[str, str] | None:
    """Return which id of an annotation is that of no image or no category, and how."""
    for key, kind in (("image_id", "images"), ("category_id", "categories")):
        if not is_id(row.get(key)):
            return key, missing(row, key, f"the id of one of the {kind}")
        if row[key] not in known[kind]:
            other = number_of(row[key]) if isinstance(row[key], str) else str(row[key])
            hint = f"; {other!r} is there: texts and numbers differ" if other in known[kind] else ""
            return key, f"got {row[key]!r} as {key!r}, which is the id of none of the {kind}{hint}"
    return None


def problem_of_annotation(row: Record, known: Mapping[str, Collection]) -> tuple[str, str] | None:
    """Return the key of an annotation that is wrong, and how."""
    box, problem = row.get("bbox"), problem_of_reference(row, known)
    if problem:
        return problem
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return "bbox", missing(row, "bbox", "four finite numbers")
    if box[2] < 0 or box[3] < 0:
        return "bbox", f"got {box} as 'bbox', expected no width and no height below 0"
    if not is_number(row.get("area")) or row["area"] < 0:
        return "area", missing(row, "area", "a number from 0 on")
    if row.get("iscrowd", 0) not in (0, 1):
        return "iscrowd", missing(row, "iscrowd", "0 or 1")
    return None


CHECKS = {"images": problem_of_image, "categories": problem_of_category, "annotations": problem_of_annotation}


def missing(record: Record, key: str, rule: str) -> str:
    """Return that a record lacks a key, or has another value than the rule allows."""
    return f"got {short(record[key])} as {key!r}, expected {rule}" if key in record else f"has no {key!r}"


def short(value: Any) -> str:
    """Return a value as it is written, or its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_path(value: Any) -> bool:
    """Say whether a value can be the name of a file: JSON's texts may hold characters that no name has."""
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def is_id(value: Any) -> bool:
    """Say whether a value can be an id: a text or a finite number, integers of any size."""
    return isinstance(value, str) or is_number(value) or type(value) is int


def number_of(text: str) -> int | None:
    """Return the integer that a text is, if it is one."""
    return int(text) if text.isdecimal() else None


def is_mask(mask: Any, image: Record) -> bool:
    """Say whether a mask is polygons, or a run-length code of the size of its image."""
    if isinstance(mask, list):
        return all(isinstance(polygon, list) and all(map(is_number, polygon)) for polygon in mask)
    size = [image["height"], image["width"]]
    if not isinstance(mask, Mapping) or mask.get("size") != size:
        return False
    counts = mask.get("counts")
    if not isinstance(counts, list):
        return isinstance(counts, str)
    return all(type(count) is int and count >= 0 for count in counts) and sum(counts) == size[0] * size[1]


def left_out(content: Mapping[str, list], classes: Sequence[str]) -> Counter:
    """Count the objects that mmdet leaves out of the training, by the reason."""
    images = {image["id"]: image for image in content["images"]}
    categories = {category["id"] for category in content["categories"] if category["name"] in classes}
    return Counter(reason(row, images[row["image_id"]], categories) for row in content["annotations"])


def reason(row: Record, image: Record, categories: Collection) -> str | None:
    """Return why mmdet (`CocoDataset.parse_data_info`) leaves an object out; None where it does not."""
    x, y, width, height = row["bbox"]
    if row.get("ignore", False):
        return IGNORED
    if min(x + width, image["width"]) <= max(x, 0) or min(y + height, image["height"]) <= max(y, 0):
        return NO_AREA if width == 0 or height == 0 else OUTSIDE
    if row["area"] <= 0 or width < 1 or height < 1:
        return NO_AREA
    return None if row["category_id"] in categories else OTHERS


def sticks_out(row: Record, image: Record) -> bool:
    """Say whether a box reaches beyond its image by more than a pixel."""
    x, y, width, height = row["bbox"]
    return x < -1 or y < -1 or x + width > image["width"] + 1 or y + height > image["height"] + 1
