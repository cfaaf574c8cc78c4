"""Whether the annotations of each split are sound, looked at before mmdet reads them."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdiff_plugins.detection.annotations import OTHERS, is_mask, left_out, read_coco, short, sticks_out
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.pictures import image_size
from PIL import Image
from torch.utils.data import Dataset

from pdiff import PdiffError

SIZES = 1000  # images of a file whose sizes are looked at, evenly spaced
MEASURED = ("select", "test")
MASK = (
    "polygons [[x, y, x, y, ...], ...], or a run-length code {size: [height, width], counts: [...]} whose size is that "
    "of the image and the sum of whose counts is height times width"
)
ORDER = "mmdet numbers the classes as a file lists them. List all in every file, in one order."


class AnnotationCheck:
    """Checks the COCO file of each data set, once for each file and its classes, and says what mmdet leaves out.

    Args:
        validated: whether mmdet's own validation runs during the training; it asks for more than pdiff.
    """

    def __init__(self, validated: bool = False) -> None:
        self.validated = validated
        self.orders: dict[tuple, tuple[str, Sequence[str]]] = {}

    def __call__(self, dataset: Dataset, name: str) -> None:
        """Check the data set of a split, built but not read; one in another format than COCO's is left alone.

        Raises:
            PdiffError: names the file, the key and the id.
        """
        key = (dataset.ann_file, tuple(dataset.metainfo.get("classes", ())))
        if key in self.orders or not reads_coco(dataset) or not os.path.isfile(dataset.ann_file):
            return
        content = read_coco(dataset.ann_file)
        names = names_in_order(content, dataset, name)
        for other, order in self.orders.values():
            if order != names and set(order) == set(names):
                line = f"task.data: the annotations of {name} and {other} list the classes in another order."
                raise PdiffError(f"{line} {ORDER}")
        self.orders[key] = (name, names)
        check_masks(content, dataset)
        if self.validated:
            check_validation(content, dataset)
        check_images(content, dataset)
        for note in notes(content, dataset, name):
            logging.getLogger("pdiff").warning("task.data: %s: %s", dataset.ann_file, note)


def reads_coco(dataset: Dataset) -> bool:
    """Say whether a data set reads its file as mmdet's CocoDataset does."""
    from mmdet.datasets import CocoDataset

    kind = type(dataset)
    methods = ("load_data_list", "parse_data_info")
    return isinstance(dataset, CocoDataset) and all(getattr(kind, m) is getattr(CocoDataset, m) for m in methods)


def names_in_order(content: Mapping[str, list], dataset: Dataset, name: str) -> list[str]:
    """Return the classes in the order of the file, which is that of the labels; raise unless all are there."""
    classes = dataset.metainfo["classes"]
    names = [category["name"] for category in content["categories"]]
    missing = [each for each in classes if each not in names]
    if missing:
        own = f"but {', '.join(map(repr, names[:10]))}{', ...' if names[10:] else ''}" if names else "and none at all"
        line = f"task.data: the annotations of {name} ({dataset.ann_file}) have not the categories"
        lacking = f"{', '.join(map(repr, missing[:3]))}{', ...' if missing[3:] else ''} of metainfo.classes"
        remedy = ORDER if len(missing) < len(classes) else "Give those of the data as task.model.classes."
        raise PdiffError(f"{line} {lacking} ({len(missing)} of {len(classes)}), {own}. {remedy}")
    return [each for each in names if each in classes]


def check_masks(content: Mapping[str, list], dataset: Dataset) -> None:
    """Raise a `PdiffError` for an object without a mask, or with one that is none, where the pipeline loads masks."""
    from mmdet.datasets.transforms import LoadAnnotations

    steps = dataset.pipeline.transforms
    if not any(isinstance(step, LoadAnnotations) and step.with_mask for step in steps):
        return
    images = {image["id"]: image for image in content["images"]}
    for index, row in enumerate(content["annotations"]):
        mask, where = row.get("segmentation"), f"{dataset.ann_file}: annotations[{index}], id {row['id']!r}"
        if not mask:
            line = f"task.data: {where}: has no 'segmentation', but the pipeline loads masks"
            raise PdiffError(f"{line}. Give it, or a config for boxes alone.")
        if not is_mask(mask, images[row["image_id"]]):
            line = f"task.data: {where}: got {short(mask)} as 'segmentation', expected {MASK}"
            raise PdiffError(f"{line}. Mend it, or give a config for boxes alone.")


def check_validation(content: Mapping[str, list], dataset: Dataset) -> None:
    """Raise a `PdiffError` for an object that mmdet's CocoMetric, on pycocotools, fails at."""
    for index, row in enumerate(content["annotations"]):
        lacks = "integers as ids" if type(row["id"]) is not int else "'iscrowd'" if "iscrowd" not in row else ""
        if lacks:
            line = f"task.data: {dataset.ann_file}: annotations[{index}], id {row['id']!r}: mmdet's validation needs"
            raise PdiffError(f"{line} {lacks}. Give them, or collect.train.validate=false.")


def check_images(content: Mapping[str, list], dataset: Dataset) -> None:
    """Raise a `PdiffError` for an image that is none, or of another size than is said, among some of them."""
    images = content["images"]
    step = -(-len(images) // SIZES) or 1
    for index in range(0, len(images), step):
        path = os.path.join(dataset.data_prefix.get("img", ""), images[index]["file_name"])
        if os.path.isfile(path) and Path(path).suffix.lower() in Image.registered_extensions():
            check_size(path, images[index], f"task.data: {dataset.ann_file}: images[{index}]")


def check_size(path: str, image: Mapping[str, Any], where: str) -> None:
    """Raise a `PdiffError` unless an image has the size that the annotations say."""
    try:
        height, width = image_size(path)
    except Exception as error:  # Pillow raises many kinds over a damaged file
        raise PdiffError(f"task.data: {path}: cannot be read as an image ({one_line(error)}). Mend it.") from None
    if (width, height) != (image["width"], image["height"]):
        got = f"got {image['width']} x {image['height']} as 'width' and 'height', expected {width} x {height}"
        raise PdiffError(
            f"{where}, id {image['id']!r}: {got}, the size of {path} as mmdet loads it, turned as its EXIF says. "
            "Mend them, and the boxes if they are for the other size."
        )


def notes(content: Mapping[str, list], dataset: Dataset, name: str) -> list[str]:
    """Return what mmdet makes of a file without a word."""
    classes, rows = dataset.metainfo["classes"], content["annotations"]
    images = {image["id"]: image for image in content["images"]}
    counts, found = left_out(content, classes), []
    parts = [f"{count} {why}" for why, count in counts.items() if why]
    if parts:
        some = "all but those of other categories" if counts[OTHERS] else "they"
        counted = name in MEASURED and len(parts) > bool(counts[OTHERS])
        also = f"; {some} count as objects in AP all the same, as in mmdet" if counted else ""
        found.append(f"of {len(rows)} objects mmdet leaves out {', '.join(parts)}{also}")
    beyond = sum(sticks_out(row, images[row["image_id"]]) for row in rows)
    if beyond:
        found.append(f"{beyond} of {len(rows)} boxes reach beyond their image (a box is x, y, width, height)")
    empty, small = filtered(content, dataset)
    if empty or small:
        words = f"{empty} without an object and {small} that are too small (filter_cfg)"
        found.append(f"of {len(images)} images mmdet leaves out {words}")
    names = [category["name"] for category in content["categories"] if category["name"] in classes]
    if names != list(classes):
        found.append("metainfo.classes are in another order than the categories, whose order mmdet takes")
    return found


def filtered(content: Mapping[str, list], dataset: Dataset) -> tuple[int, int]:
    """Return how many images `CocoDataset.filter_data` leaves out as they have no object, and as they are small."""
    rules = {} if dataset.test_mode else dataset.filter_cfg or {}
    categories = {
        category["id"] for category in content["categories"] if category["name"] in dataset.metainfo["classes"]
    }
    filled = {row["image_id"] for row in content["annotations"] if row["category_id"] in categories}
    empty = [rules.get("filter_empty_gt", False) and image["id"] not in filled for image in content["images"]]
    small = [min(image["width"], image["height"]) < rules.get("min_size", 0) for image in content["images"]]
    return sum(empty), sum(b and not a for a, b in zip(empty, small, strict=True))
