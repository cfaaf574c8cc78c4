"""What a detector gets wrong: objects that it misses, and detections of what is not there."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

IOU = 0.5


class Errors:
    """The errors of one candidate on one split.

    A detection counts when its score is at least the threshold. In the order of their scores, detections of an
    image take the free ground truth of their class with which they overlap most, if that is an IoU of at least 0.5.
    A ground truth that nobody takes is missed; a detection that takes none is a false positive, unless it overlaps by
    at least 0.5 with a ground truth of its class that is to be ignored (a crowd); those are neither missed nor taken.

    The signature, int16 `(G + S C)`, is 0 or 1 for each of the G ground truths of the split (missed), then for each of
    S images and C classes the number of false positives.

    Args:
        truths: the ground truths of each of the S images: `boxes` `(g, 4)` as x1, y1, x2, y2, `labels` and `ignored`
            `(g,)`.
        classes: C.
        threshold: of the score.
    """

    def __init__(self, truths: Sequence[Mapping[str, Tensor]], classes: int, threshold: float):
        self.truths, self.threshold = truths, threshold
        self.missed = [torch.ones(int((~truth["ignored"]).sum()), dtype=torch.int16) for truth in truths]
        self.false = torch.zeros(len(truths), classes, dtype=torch.int16)

    def add(self, image: int, bboxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Count the errors on an image from its detections: bboxes `(d, 4)`, scores and labels `(d,)`."""
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= self.threshold]
        truth = self.truths[image]
        if len(order) == 0:
            return
        overlap = box_iou(bboxes[order], truth["boxes"]) * (labels[order, None] == truth["labels"])
        excused = (overlap[:, truth["ignored"]] >= IOU).any(1).tolist()
        free = self.missed[image].tolist()
        # Plain numbers: tensor operations on a handful of boxes would cost ten times what they compute.
        for detection, overlaps in enumerate(overlap[:, ~truth["ignored"]].tolist()):
            fits = [value * untaken for value, untaken in zip(overlaps, free, strict=True)]
            best = max(fits, default=0.0)
            if best >= IOU:
                free[fits.index(best)] = 0
            elif not excused[detection]:
                self.false[image, labels[order[detection]]] += 1
        self.missed[image] = torch.tensor(free, dtype=torch.int16)

    def found(self) -> dict[int, float]:
        """Return, by label, the share of the objects of each class that is not missed; classes without one left out."""
        labels = torch.cat([truth["labels"][~truth["ignored"]] for truth in self.truths])
        missed = torch.cat(self.missed).double()
        return {label: float(1 - missed[labels == label].mean()) for label in labels.unique().tolist()}

    def signature(self, labels: Sequence[int] | None = None, rows: Sequence[int] | None = None) -> Tensor:
        """Return missed ground truths and numbers of false positives in one vector.

        Args:
            labels: of the classes whose errors count, the others' are 0; None: all.
            rows: positions of the images whose errors count; None: all.
        """
        images, classes = self.false.shape
        counts = torch.zeros(images, classes, dtype=torch.int16)
        rows = range(images) if rows is None else rows
        counts[torch.tensor(rows)[:, None], torch.tensor(range(classes) if labels is None else labels)] = 1
        known = [truth["labels"][~truth["ignored"]] for truth in self.truths]
        missed = [missed * count[own] for missed, count, own in zip(self.missed, counts, known, strict=True)]
        return torch.cat([*missed, (self.false * counts).flatten()])


def shared_errors(a: Tensor, b: Tensor) -> Tensor:
    """Return, for every pair of candidates, the errors that both make over the errors that either makes.

    With the signatures x and y of `Errors`: sum(min(x, y)) / sum(max(x, y)), and 1 where neither makes an error. For an
    object that is missed this is the error-IoU; false positives are the same error when they are in the same image and
    of the same class, wherever they lie.

    Args:
        a: signatures `(A, D)`.
        b: signatures `(B, D)`.

    Returns:
        `(A, B)`, float32; 1 means equal behaviour.
    """
    highest = int(max(a.max(), b.max())) if a.shape[1] else 0
    # A number x is how many of the levels 1, 2, ... it reaches, and the smaller of two reaches those that both reach.
    both = torch.zeros(len(a), len(b))
    for level in range(1, highest + 1):
        both += (a >= level).float() @ (b >= level).float().T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
