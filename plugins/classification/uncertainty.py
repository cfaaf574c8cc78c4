"""How well networks know what they do not know: likelihood, calibration, and images that are of no class of theirs.

The calibration error is that of Guo et al. 2017 (https://arxiv.org/abs/1706.04599), of the most probable class, in bins
of equal width, by torchmetrics. Images from outside are told by the largest class probability (Hendrycks and Gimpel
2017, https://arxiv.org/abs/1610.02136); the area under the ROC curve is scikit-learn's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pdiff_plugins.images.data import Split, build_splits
from torch import Tensor

from pdiff import PdiffError, check_positive

UNCERTAINTY = "uncertainty"  # where a task keeps it, among its splits
MEASURED = ("select", "test")
PLACE = ("type", "name", "root", "path")  # settings that say which data set it is
BELOW_ONE = 1 - 1e-12  # torchmetrics gives what is exactly 1 a bin of its own


@dataclass(frozen=True)
class Uncertainty:
    """What is measured beside the accuracy.

    Attributes:
        bins: of the calibration error.
        outside: images of no class that the networks know, by the split that they are held against; None without.
    """

    bins: int
    outside: Mapping[str, Split] | None

    def beyond(self, split: str) -> Split | None:
        """Return the images from outside that a split is held against; None without them."""
        return self.outside[split] if self.outside and split in self.outside else None


class Beliefs:
    """What candidates believe of the images of a split.

    Args:
        count: how many candidates.
        labels: the right answers `(S,)`, on the device of the logits.

    Attributes:
        likelihoods: logarithm of the probability of the right answer `(count, S)`, float64.
        confidences: probability of the most probable answer `(count, S)`, float64.
    """

    def __init__(self, count: int, labels: Tensor):
        self.labels = labels
        shape = 2, count, len(labels)
        self.likelihoods, self.confidences = torch.zeros(shape, dtype=torch.float64, device=labels.device)

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some candidates on some rows."""
        self.likelihoods[members, rows] = right_log_probabilities(logits, self.labels[rows])
        self.confidences[members, rows] = confidence(logits)


def confidence(logits: Tensor) -> Tensor:
    """Return the probability of the most probable answer `(n, B)`, of logits `(n, B, classes)`."""
    return logits.double().softmax(2).amax(2)


def right_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log-probabilities `(n, B)` that logits `(n, B, classes)` give the right answers `(B,)`."""
    answers = labels.expand(len(logits), -1)[:, :, None]
    return logits.double().log_softmax(2).gather(2, answers)[:, :, 0]


def check_outside(data: Mapping[str, Any], outside: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for images from outside, by their settings, that are of the data which networks know."""
    if any(data.get(key) != outside.get(key) for key in PLACE):
        return
    known, strange = data.get("classes"), outside.get("classes")
    both = None if known is None or strange is None else sorted({*known} & {*strange})
    if both != []:
        got = "got all classes of one of the two" if both is None else f"got {both} in both"
        line = f"{got}, for it is the data set of task.data, expected classes that the networks do not know"
        raise PdiffError(f"task.uncertainty.outside.classes: {line}. Set it, and task.data.classes to others.")


def build_uncertainty(
    splits: Mapping[str, Split],
    data: dict,
    seed: int,
    conditions: dict | None,
    bins: int = 15,
    outside: dict | None = None,
) -> Uncertainty:
    """Return what is measured beside the accuracy, of every candidate and every ensemble.

    Args:
        splits: of the task.
        data: settings of `task.data`.
        seed: of the run.
        conditions: what the networks are made for; must be None.
        bins: of the calibration error, of equal width.
        outside: `type` and settings of a data set whose images are of no class that the networks know, as in
            `task.data`; those of its `select` and `test` are held against the task's, its `train` is not used.
    """
    where, inside = "task.uncertainty.outside", splits["train"]
    if conditions is not None:
        line = "got it beside task.conditions, expected one of the two. Set one of them to null."
        raise PdiffError(f"task.uncertainty: {line}")
    check_positive("task.uncertainty", bins=bins)
    if outside is None:
        return Uncertainty(bins, None)
    try:
        found = build_splits(outside, inside.eval_batch, inside.device, seed)
    except PdiffError as error:
        raise PdiffError(str(error).replace("task.data", where)) from None
    check_outside(data, outside)
    strange = found["test"]
    for name, got, expected in (
        ("size", strange.size, inside.size),
        ("channels", strange.images.shape[1], inside.images.shape[1]),
    ):
        if got != expected:
            raise PdiffError(f"{where}: got {name} {got}, expected {expected} as in task.data. Make them alike.")
    for split in found.values():
        split.mean, split.std, split.eval_networks = inside.mean, inside.std, inside.eval_networks
    return Uncertainty(bins, {name: found[name] for name in MEASURED})


def calibration_error(confidences: Tensor, right: Tensor, bins: int) -> float:
    """Return how far accuracy and confidence are apart, the mean over samples of what it is in their bin; 0 is best.

    Guo et al. 2017, equation 3.

    Args:
        confidences: probability of the most probable answer `(S,)`, float64.
        right: whether it is the right one `(S,)`.
        bins: of equal width, from 0 to 1.
    """
    from torchmetrics.functional.classification import binary_calibration_error

    return binary_calibration_error(confidences.clamp(max=BELOW_ONE), right.long(), bins).item()


def uncertainty_of(
    likelihoods: Tensor, confidences: Tensor, right: Tensor, outside: Tensor | None, bins: int
) -> dict[str, float]:
    """Return the further figures of one candidate, or of one ensemble, whose logits are finite.

    Args:
        likelihoods, confidences: as in `Beliefs`, of one `(S,)`.
        right: which samples it gets right `(S,)`.
        outside: confidences in images from outside `(O,)`; None without any.
        bins: of the calibration error.
    """
    from sklearn.metrics import roc_auc_score

    found = {
        "negative_log_likelihood": -likelihoods.mean().item(),
        "calibration_error": calibration_error(confidences, right, bins),
    }
    if outside is None or not outside.isfinite().all():
        return found
    known = torch.cat([torch.ones(len(confidences)), torch.zeros(len(outside))])
    return {**found, "outside_auroc": float(roc_auc_score(known, torch.cat([confidences, outside])))}
