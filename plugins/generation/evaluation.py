"""Images of every candidate from the same noise, and what they are worth; the frozen prefix runs once.

The first step of the sampler has the same input for each candidate, so that its frozen prefix is computed for the
first candidate alone. From the second step on the inputs differ, and each candidate computes the whole network. The
denoising loss has the same input for each candidate throughout.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from pdiff_plugins.generation.denoising import Noisy
from pdiff_plugins.generation.features import FeatureNetwork
from pdiff_plugins.generation.fid import check_counts, unrelated
from pdiff_plugins.generation.reference import Reference
from pdiff_plugins.generation.sampling import Sampler
from pdiff_plugins.images.class_sets import PREFIX, members
from pdiff_plugins.images.data import Split
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pdiff import Candidates, Conditions, Evaluation, PdiffError, Replay, progress, to_host

GROUP = 50  # candidates whose features are in memory at a time


class Bench:
    """What the candidates of one split are measured with; real images are looked at when a stage first asks for it.

    Args:
        name: of the split.
        split: real images.
        noise: what images are made of `(G, C, H, W)`.
        sampler: makes them.
        features: sees them.
        hold: from a split to those of its images that the denoising loss takes.
        signature_images: how many of the images enter a signature.
        groups: of the jackknife; 0 takes the FID as it is.
        seed: of what the distances draw.
        classes: the names of the classes, where each candidate is for a set of them and is held against the real images
            of that set alone; None: all candidates are held against all of them.

    Raises:
        PdiffError: there are too few images, real or made, for the FID.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        noise: Tensor,
        sampler: Sampler,
        features: FeatureNetwork,
        hold: Callable[[Split], Noisy],
        signature_images: int,
        groups: int,
        seed: int,
        classes: Sequence[str] | None = None,
    ):
        check_counts(name, len(split), len(noise), features.size, groups)
        self.split, self.noise, self.sampler, self.features = split, noise, sampler, features
        self.hold, self.signature_images = hold, min(signature_images, len(noise))
        self.groups, self.seed, self.classes = groups, seed, classes
        self.of_classes: dict[tuple[int, ...], Reference] = {}

    @cached_property
    def real(self) -> Tensor:
        """The features of the real images `(R, F)`, on the CPU, where distances are computed."""
        return torch.cat([self.features(pixels)[0] for _, pixels, _ in self.split.batches()]).cpu()

    @cached_property
    def whole(self) -> Reference:
        """All real images."""
        return Reference(self.real, self.split, self.hold, len(self.noise), self.groups, self.seed)

    def references(self, conditions: Conditions | None) -> list[Reference]:
        """Return the real images of each set of classes, the same object for the same set."""
        if conditions is None:
            names = ", ".join(f"{PREFIX}{name}" for name in self.classes)
            raise PdiffError(f"evaluate: got candidates without conditions, expected {names}. Give one for each.")
        found = [tuple(labels) for labels in members(self.classes, conditions)]
        for labels in found:
            if labels not in self.of_classes:
                rows = self.split.rows_of(labels)
                given = (self.hold, len(self.noise), self.groups, self.seed, labels)
                self.of_classes[labels] = Reference(self.real[rows], self.split.take(rows), *given)
        return [self.of_classes[labels] for labels in found]

    @cached_property
    def unit(self) -> float:
        """The mean distance between the features of two different real images, of whatever class."""
        return unrelated(self.real)


def fid_of_noise(bench: Bench, conditions: Conditions | None = None) -> float:
    """Return the FID, by the jackknife, of the noises themselves: of a network that has learnt nothing.

    Args:
        bench: whose noises and real images are taken.
        conditions: sets of classes: the mean of the FIDs to the real images of each.
    """
    batches = bench.noise.clamp(-1, 1).split(bench.split.eval_batch)
    features = torch.cat([bench.features(batch)[0] for batch in batches]).cpu()
    references = [bench.whole] if conditions is None else bench.references(conditions)
    return torch.stack([reference.jackknife(features).mean() for reference in references]).mean().item()


def images_of(
    model: nn.Module, candidates: Candidates, bench: Bench, count: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield, batch by batch and in it candidate by candidate, number and images `(B, C, H, W)` in about [-1, 1].

    Args:
        model: the network.
        candidates: M of them.
        bench: whose noise is taken.
        count: of the first noises; default: all.
    """
    replay = Replay(model.eval(), candidates, lambda batch: bench.sampler(model, *batch))
    noise, size = bench.noise[:count], bench.split.eval_batch
    for start in range(0, len(noise), size):
        yield from enumerate(replay((noise[start : start + size], start)))


def losses(model: nn.Module, candidates: Candidates, references: Sequence[Reference]) -> Tensor:
    """Return each candidate's mean squared error `(M,)` on held-out images of its own reference."""
    found = {}
    for reference in dict.fromkeys(references):
        rows, held = [i for i, other in enumerate(references) if other is reference], reference.held_out()
        replay = Replay(model.eval(), candidates.take(rows), lambda batch: model(*batch).sample)
        for row, predicted in zip(rows, replay((held.noisy, held.t)), strict=True):
            found[row] = mse_loss(predicted, held.target)
    return torch.stack([found[row] for row in range(len(references))])


def evaluations(model: nn.Module, candidates: Candidates, bench: Bench, split: str) -> Iterator[Evaluation]:
    """Yield FID, its pseudo-values and signature of each candidate, with further figures."""
    batches = math.ceil(len(bench.noise) / bench.split.eval_batch)
    with progress(f"evaluate on {split}", len(candidates) * batches) as advance:
        for start in range(0, len(candidates), GROUP):
            yield from evaluate_group(model, candidates.take(slice(start, start + GROUP)), bench, advance)


def evaluate_group(model: nn.Module, candidates: Candidates, bench: Bench, advance) -> Iterator[Evaluation]:
    """Yield the evaluations of a few candidates; `advance` is called for each batch of images.

    What is seen of all images comes to the host at the end and at once: no batch waits for a GPU, nor any candidate.
    """
    everything = [bench.whole] * len(candidates)
    references = everything if bench.classes is None else bench.references(candidates.conditions)
    loss = losses(model, candidates, references)
    seen, finite = [[] for _ in candidates], [[] for _ in candidates]
    for index, images in images_of(model, candidates, bench):
        seen[index].append(bench.features(images.clamp(-1, 1)))
        finite[index].append(images.isfinite().all())
        advance()
    alive = torch.stack([torch.stack(batches).all() for batches in finite])
    joined = [torch.cat(parts) for batches in seen for parts in zip(*batches, strict=True) if parts[0] is not None]
    loss, alive, *joined = to_host([loss, alive, *joined])
    each = len(joined) // len(seen)  # features, and probabilities where there are any
    for index, own in enumerate(references):
        found = joined[each * index : each * (index + 1)] if alive[index] else None
        yield evaluation(found, loss[index].item(), bench, own)


def evaluation(seen: Sequence[Tensor] | None, loss: float, bench: Bench, reference: Reference) -> Evaluation:
    """Return what a candidate's images and its loss amount to.

    Args:
        seen: the features of the images `(G, F)` and, of a classifier, their probabilities `(G, classes)`, on the CPU;
            None of a dead candidate.
        loss: its denoising loss.
        bench: that it was measured with.
        reference: the real images that it is held against.
    """
    if seen is None:
        signature = torch.full((bench.signature_images, bench.features.size), math.inf)
        scores = torch.full((bench.groups,), math.inf, dtype=torch.float64) if bench.groups else None
        return Evaluation(math.inf, signature, scores)
    features, *probabilities = seen
    fid, kid = reference.distance(features)
    scores, details, condition = None, {"KID": kid}, None
    if bench.groups:
        scores, details = reference.jackknife(features), {"FID_plain": fid, **details}
        fid = scores.mean().item()
    details |= {"denoising_loss": loss} if math.isfinite(loss) else {}
    if probabilities:
        confidence, classes = probabilities[0].max(1)
        details |= {"confidence": confidence.mean().item(), "classes": float(len(classes.unique()))}
        if reference.labels is not None:
            shown = classes.bincount(minlength=len(bench.classes)).double() / len(classes)
            details["share"] = shown[list(reference.labels)].sum().item()
            condition = shown_of_asked(shown, bench.classes, reference.labels)
    return Evaluation(fid, features[: bench.signature_images] / bench.unit, scores, details, condition)


def shown_of_asked(shown: Tensor, names: Sequence[str], labels: Sequence[int]) -> dict[str, float]:
    """Return how much of each class a candidate shows, in the terms of its condition.

    A network for a set of k classes that obeys shows each of them in 1/k of its images, and no other. So the share of
    each class is given times k: 1 for a class of the set and 0 for every other is perfect. A network that shows one
    class of the set alone has k there.

    Args:
        shown: the share of its images that the classifier takes for each class `(C,)`.
        names: of the classes.
        labels: of the classes in the set.
    """
    return {f"{PREFIX}{name}": share * len(labels) for name, share in zip(names, shown.tolist(), strict=True)}
