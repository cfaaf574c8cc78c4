"""Whether the label maps of the splits are sound: a label for each pixel, of a class or ignored; several classes."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mmcv
import numpy as np
from pdiff_plugins.openmmlab.data import Split
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.pictures import image_size
from pdiff_plugins.openmmlab.wrapped import inside
from torch.utils.data import Dataset

from pdiff import PdiffError, progress

T = TypeVar("T")
MOST = 5000  # label maps of a data set that are read; of more, some, evenly spaced
SEEN = "seen"  # images of train once more
BLACK_AND_WHITE = (0, 255)


def chance(pixels: np.ndarray) -> float:
    """Return the mIoU of one that calls every pixel the most frequent class, from the pixels of each class `(C,)`."""
    return float(pixels.max() / pixels.sum() / np.count_nonzero(pixels))


def check_splits(splits: Mapping[str, Split]) -> dict[str, np.ndarray]:
    """Return how many pixels of each class a split has `(C,)`, by split; of a large one, those of the maps looked at.

    Raises:
        PdiffError: for the first label map that is missing or damaged, of another size than its image, or has a label
            that is none of the classes; and for a split whose every pixel is ignored, or is of one class.
    """
    datasets = [
        (name, dataset) for name, split in splits.items() if name != SEEN for dataset in inside(split.dataset)
    ]
    for _, dataset in datasets:
        for index in range(len(dataset)):
            check_path(dataset.get_data_info(index))
    looked = [range(0, len(dataset), -(-len(dataset) // MOST)) for _, dataset in datasets]
    counted = {name: 0 for name, _ in datasets}
    with progress("check labels", sum(map(len, looked))) as advance:
        for (name, dataset), rows in zip(datasets, looked, strict=True):
            for index in rows:
                counted[name] = counted[name] + check_label_map(dataset, dataset.get_data_info(index))
                advance()
            if len(rows) < len(dataset):
                say(f"of the {len(dataset)} label maps of {name} {len(rows)} were looked at, evenly spaced")
    for name, pixels in counted.items():
        check_classes(name, pixels, splits[name].dataset)
    return {name: pixels[:-1] for name, pixels in counted.items()}


def say(line: str) -> None:
    """Tell the user what he may not expect of his data."""
    logging.getLogger("pdiff").warning("task.data: %s", line)


def check_classes(name: str, pixels: np.ndarray, dataset: Dataset) -> None:
    """Raise a `PdiffError` unless the pixels of a split are of several classes, and say what is odd about them.

    Args:
        name: of the split.
        pixels: of each class, and of those that are ignored, `(C + 1,)`.
        dataset: of the split.
    """
    *counts, ignored = pixels.tolist()
    classes, plain = dataset.metainfo["classes"], inside(dataset)[0]
    there = [each for each, count in zip(classes, counts, strict=True) if count]
    if not there:
        line = f"task.data: every pixel of {name} is ignored ({ignored_label(plain)})."
        raise PdiffError(f"{line} Give label maps with classes in them; those of a challenge's test data are kept.")
    if len(there) == 1:
        raise single_class(name, there[0], ignored / sum(pixels), plain)
    if 2 * ignored > sum(pixels):
        say(f"{ignored / sum(pixels):.0%} of the pixels of {name} are ignored")
    missing = [each for each in classes if each not in there]
    if missing and name != "select":
        say(f"no pixel of {name} is of the classes {', '.join(map(str, missing))}")


def ignored_label(dataset: Dataset) -> str:
    """Return which labels of a data set are ignored, in words."""
    return f"{dataset.ignore_index}{', or 0, by reduce_zero_label' if dataset.reduce_zero_label else ''}"


def single_class(name: str, label: str, ignored: float, dataset: Dataset) -> PdiffError:
    """Return the error of a split of one class.

    Args:
        name: of the split.
        label: name of the class.
        ignored: share of the pixels that are ignored.
        dataset: one of the split's.
    """
    path = dataset.get_data_info(0)["seg_map_path"]
    others = f"; the others, {ignored:.0%}, are ignored ({ignored_label(dataset)})" if ignored else ""
    remedy = "In masks of 0 and 255, write 1 for 255; or set" if ignored else "Give several, or set"
    return PdiffError(
        f"task.data: every pixel of {name} that counts is of the class {label!r}{others}, expected several classes, "
        f"in {path} say. {remedy} classes, ignore_index and reduce_zero_label in task.model.config."
    )


def check_path(info: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for an image without a label map."""
    path = info.get("seg_map_path")
    if path is None:
        line = f"task.data: the image {info['img_path']} has no label map, as data_prefix has no seg_map_path."
        raise PdiffError(f"{line} Add it.")
    if not os.path.exists(path):
        line = f"task.data: the image {info['img_path']} has no label map, expected {path}."
        if Path(info["img_path"]).parent.name.startswith("."):
            raise PdiffError(f"{line} Take the hidden folder away: mmseg takes its images, too.")
        raise PdiffError(f"{line} Check data_prefix and seg_map_suffix.")


def check_label_map(dataset: Dataset, info: Mapping[str, Any]) -> np.ndarray:
    """Check the label map of one image, and return how many pixels of each class and ignored it has `(C + 1,)`."""
    path = info["seg_map_path"]
    labels = read(path, lambda: mmcv.imread(path, flag="unchanged", backend="pillow"))
    size = read(info["img_path"], lambda: image_size(info["img_path"]))
    if labels.ndim == 3:
        kinds = {2: "grey and alpha", 3: "red, green and blue", 4: "red, green, blue and alpha"}
        line = f"task.data: {path} has {labels.shape[2]} channels ({kinds.get(labels.shape[2], 'of colour')})"
        raise PdiffError(f"{line}, expected one label for each pixel. Write the number of the class for its colour.")
    if labels.shape != size:
        raise PdiffError(f"task.data: {path} has the size {labels.shape}, expected {size}, that of its image. Mend it.")
    if labels.dtype.kind == "f" and not (labels == labels.round()).all():
        raise PdiffError(f"task.data: {path} holds fractions, expected labels. Write whole numbers, in 8 bits.")
    present, pixels = np.unique(labels.astype(np.int64), return_counts=True)
    found = classes_of(present, info)
    count, ignored = len(dataset.metainfo["classes"]), dataset.ignore_index
    alien = ((found >= count) | (found < 0)) & (found != ignored)
    if alien.any():
        raise alien_label(path, present, found, alien, count, ignored)
    counts = np.zeros(count + 1, np.int64)
    np.add.at(counts, np.where(found == ignored, count, found), pixels)
    return counts


def alien_label(
    path: str, present: np.ndarray, found: np.ndarray, alien: np.ndarray, count: int, ignored: int
) -> PdiffError:
    """Return the error of a label map with labels that are none of the classes.

    Args:
        path: of the label map.
        present: its labels, each once.
        found: what they are read as.
        alien: which of them are no class.
        count: number of classes.
        ignored: label that is ignored.
    """
    label, meant = present[alien][0], found[alien][0]
    read_as = "" if label == meant else f" (read as {meant})"
    several = f", as {alien.sum() - 1} others" if alien.sum() > 1 else ""
    remedy = "Mend it, or set classes, ignore_index and reduce_zero_label in task.model.config."
    if set(present) <= set(BLACK_AND_WHITE):
        remedy = "Write 1 for 255, as it is a mask in black and white."
    elif several and 0 in present and 255 in present and len(present) > count + 1:
        remedy += " Grey values between labels come from saving as JPEG, or from resizing."
    return PdiffError(
        f"task.data: {path} has the label {label}{read_as}{several}, expected 0 to {count - 1} or {ignored}, which is "
        f"ignored. {remedy}"
    )


def read(path: str, reader: Callable[[], T]) -> T:
    """Return what is read of a file, or raise a `PdiffError` that names it."""
    try:
        return reader()
    except Exception as error:  # libraries raise many kinds over a damaged file
        raise PdiffError(
            f"task.data: {path} cannot be read ({one_line(error)}). Mend it, or give task.check_labels=false "
            "when it is in a format that only the config's pipeline reads."
        ) from None


def classes_of(labels: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
    """Return what mmseg's LoadAnnotations makes of labels: reduced first, then mapped to the classes that are kept."""
    reduced = np.where((labels == 0) | (labels == 255), 255, labels - 1) if info["reduce_zero_label"] else labels
    found = reduced.copy()
    for old, new in (info["label_map"] or {}).items():
        found[reduced == old] = new
    return found
