"""How much COCO's AP owes to the images of the test set: a delete-a-group jackknife (Tukey 1958; Efron 1982).

AP is no mean over images. Its pseudo-values are, to first order: their mean is AP, and their spread gives AP's noise.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor

GROUPS = 20


def precision_of(evaluation: COCOeval_faster, images: Sequence[int], most: int) -> float:
    """Return AP on some of the images, matched already; NaN where none of them has a ground truth.

    Args:
        evaluation: evaluated with `separate_eval`.
        images: their positions; one that stands there twice counts twice.
        most: number of an image's detections of a class that AP heeds, one of the evaluation's.
    """
    params, matched = evaluation._paramsEval, evaluation._evalImgs_cpp
    classes = range(0, len(matched), len(params.areaRng) * len(params.imgIds))  # by class, size and image
    part = copy.copy(evaluation)
    part._evalImgs_cpp = [matched[first + image] for first in classes for image in images]
    part._paramsEval = copy.copy(params)
    part._paramsEval.imgIds = [params.imgIds[image] for image in images]
    part._paramsEval.areaRng, part._paramsEval.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
    part._paramsEval.maxDets = [most]
    part.accumulate()
    precision = part.eval["precision"]
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")


def lasts_without_a_group(objects: NDArray) -> bool:
    """Say whether each class that has objects has some in several groups of images, so that AP is defined without one.

    Args:
        objects: numbers of objects that are no crowd, by image in the order of the ids and by class `(S, C)`.
    """
    count = min(GROUPS, len(objects))
    there = np.stack([objects[group::count].any(0) for group in range(count)]).sum(0)
    return bool((there != 1).all())


def pseudo_values(evaluation: COCOeval_faster, whole: float, most: int) -> Tensor | None:
    """Return the pseudo-values of AP `(G,)`, float32, one for each of at most 20 groups of images.

    Image i, in the order of the ids, is in group i mod G. The pseudo-value of a group is `G AP - (G - 1) AP_g`, where
    AP_g is AP without the group; a constant moves their mean, which differs from AP to second order, onto it. As in
    COCO, a class whose ground truths all left with the group is no part of AP_g.

    Args:
        evaluation: evaluated with `separate_eval`.
        whole: AP on all images.
        most: number of an image's detections of a class that AP heeds.

    Returns:
        None where AP is not defined without one of the groups, which depends on the ground truths alone.
    """
    images = range(len(evaluation._paramsEval.imgIds))
    count = min(GROUPS, len(images))
    kept = [[image for image in images if image % count != group] for group in range(count)]
    without = [precision_of(evaluation, group, most) for group in kept]
    if np.isnan(without).any():
        return None
    values = count * whole - (count - 1) * np.array(without)
    return torch.from_numpy(values - values.mean() + whole).float()
