"""COCO's average precision of many candidates on one split, with mmdet's own metric."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from mmdet.evaluation.metrics import CocoMetric
from pdiff_plugins.detection.jackknife import lasts_without_a_group, pseudo_values
from torch import Tensor

from pdiff import PdiffError

SIZES = {"AP_small": 1, "AP_medium": 2, "AP_large": 3}
MAXIMUM = 100  # detections of a class in an image that AP heeds, where proposal_nums has it; as in pycocotools


def numbered(ids: Sequence[int | float | str]) -> dict[int | float | str, int]:
    """Return a number from 1 on for each id, in the order of the ids, texts behind numbers."""
    return {name: number for number, name in enumerate(sorted(ids, key=lambda i: (isinstance(i, str), i)), 1)}


def renumbered(content: Mapping[str, Any], images: Mapping[Any, int], categories: Mapping[Any, int]) -> dict[str, list]:
    """Return what AP needs to know of some images and categories of a COCO file, all ids numbers from 1 on."""
    rows = [row for row in content["annotations"] if row["image_id"] in images and row["category_id"] in categories]
    return {
        "images": [{"id": number} for number in images.values()],
        "categories": [
            {"id": categories[category["id"]], "name": category["name"]}
            for category in content["categories"]
            if category["id"] in categories
        ],
        "annotations": [
            {
                "id": number,
                "image_id": images[row["image_id"]],
                "category_id": categories[row["category_id"]],
                "bbox": row["bbox"],
                "area": row["area"],
                "iscrowd": int(row.get("iscrowd", 0)),
            }
            for number, row in enumerate(rows, 1)
        ],
    }


class CandidateMetric(CocoMetric):
    """mmdet's CocoMetric, one instance per candidate, all with the same ground truths.

    It differs in three things: the precisions are not rounded to three digits; `faster_coco_eval` computes them, with
    the results of pycocotools in a fraction of the time; and images, categories and annotations have numbers of our
    own, since COCO's tools take an annotation with the id 0 for none, which costs an object that was found, and know no
    ids but integers.

    Args:
        ann_file: COCO annotations.
        images: ids of the images that are evaluated, numbers or texts.
        categories: ids of the categories, in the order of the labels.
        settings: of the config's CocoMetric; `iou_thrs` and `proposal_nums` are heeded.
    """

    def __init__(self, ann_file: str, images: Sequence[int], categories: Sequence[int], **settings: Any):
        super().__init__(metric="bbox", **settings)
        self.ann_file = ann_file
        self.image_numbers, self.category_numbers = numbered(images), numbered(categories)
        with contextlib.redirect_stdout(io.StringIO()):
            content = renumbered(COCO.load_json(ann_file), self.image_numbers, self.category_numbers)
            self._coco_api = COCO(content)
        self.cat_ids = [self.category_numbers[category] for category in categories]
        self.img_ids = [self.image_numbers[image] for image in images]
        self.wanted, self.images = self.cat_ids, self.img_ids
        self.noise_is_known = True

    def another(self, labels: Sequence[int] | None = None, images: Sequence[int] | None = None) -> "CandidateMetric":
        """Return an empty accumulator with the same ground truths, or with those of some classes and images alone.

        The pseudo-values of accumulators without `images` have one shape, or are None: for some classes they are there
        if they would be for each class alone. With `images`, which differ between conditions, they are None.

        Args:
            labels: of the classes that count; None: all.
            images: positions of the images that count; None: all.

        Raises:
            PdiffError: no object counts.
        """
        metric = copy.copy(self)
        metric.results = []
        if labels is None and images is None:
            return metric
        if labels is not None:
            metric.wanted = [self.cat_ids[label] for label in labels]
        if images is not None:
            metric.images = [self.img_ids[image] for image in images]
        rows, columns = (slice(None) if part is None else list(part) for part in (images, labels))
        if not self.objects[rows][:, columns].any():
            names = ", ".join(str(category["name"]) for category in self._coco_api.loadCats(metric.wanted))
            line = f"none of {len(metric.images)} images of a condition in {self.ann_file} has an object of {names}"
            raise PdiffError(f"collect.conditions: {line}. Leave it out, or give images with such objects.")
        metric.noise_is_known = images is None and lasts_without_a_group(self.objects[np.argsort(self.img_ids)])
        return metric

    @cached_property
    def objects(self) -> np.ndarray:
        """How many objects of each class are in each image `(S, C)`, crowds left out."""
        rows = {image: row for row, image in enumerate(self.img_ids)}
        columns = {category: column for column, category in enumerate(self.cat_ids)}
        counts = np.zeros((len(rows), len(columns)), np.int64)
        for each in self._coco_api.dataset["annotations"]:
            counts[rows[each["image_id"]], columns[each["category_id"]]] += not each["iscrowd"]
        return counts

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return AP, AP50, AP75, AP by size, and `AP/<class>`; figures that no ground truth defines are left out."""
        return self.figures(self.evaluated(results))

    def measure(self) -> tuple[dict[str, float], Tensor | None]:
        """Return the figures of what was processed, and the pseudo-values of its AP, see `pseudo_values`."""
        evaluation = self.evaluated(self.results)
        figures = self.figures(evaluation)
        if not self.noise_is_known:
            return figures, None
        return figures, pseudo_values(evaluation, figures["AP"], self.heeded())

    def heeded(self) -> int:
        """Return the number of detections of a class in an image that AP heeds."""
        return MAXIMUM if MAXIMUM in self.proposal_nums else max(self.proposal_nums)

    def evaluated(self, results: list) -> COCOeval_faster:
        """Return COCO's evaluation, which keeps what was matched in each image."""
        detections = np.concatenate([self.rows(prediction) for _, prediction in results])
        if len(detections) == 0:  # as good as one that hits nothing, and with the same figures
            detections = np.array([[self.images[0], 0, 0, 0, 0, 0, self.wanted[0]]], np.float64)
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._coco_api.loadRes(detections)
            quiet = {"print_function": lambda *_: None}
            evaluation = COCOeval_faster(self._coco_api, found, "bbox", separate_eval=True, **quiet)
            evaluation.params.catIds = self.wanted
            evaluation.params.imgIds = self.images
            evaluation.params.maxDets = list(self.proposal_nums)
            evaluation.params.iouThrs = np.atleast_1d(self.iou_thrs)
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    def figures(self, evaluation: COCOeval_faster) -> dict[str, float]:
        """Return the figures of an evaluation."""
        precision = evaluation.eval["precision"]  # (thresholds, recalls, classes, sizes, numbers of detections)
        thresholds, counts = evaluation.params.iouThrs, sorted(self.proposal_nums)
        parts = {"AP": precision[..., 0, counts.index(self.heeded())]}
        parts |= {f"AP{round(100 * iou)}": precision[np.isclose(thresholds, iou), ..., 0, -1] for iou in (0.5, 0.75)}
        parts |= {name: precision[..., size, -1] for name, size in SIZES.items()}
        categories = enumerate(self._coco_api.loadCats(sorted(self.wanted)))
        parts |= {f"AP/{category['name']}": precision[:, :, index, 0, -1] for index, category in categories}
        return {name: float(part[part > -1].mean()) for name, part in parts.items() if (part > -1).any()}

    def rows(self, prediction: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the detections of an image that count `(D, 7)`: image, x, y, width, height, score, category."""
        x1, y1, x2, y2 = prediction["bboxes"].astype(np.float64).reshape(-1, 4).T
        image = np.full(len(x1), self.image_numbers[prediction["img_id"]], np.float64)
        category = np.array(self.cat_ids, np.float64)[prediction["labels"]]
        found = np.stack([image, x1, y1, x2 - x1, y2 - y1, prediction["scores"].astype(np.float64), category], 1)
        return found[np.isin(category, self.wanted)]
