"""Images of every candidate from the same noise, and what they are worth; the frozen prefix runs once.

The first step of the sampler has the same input for each candidate, so that its frozen prefix is computed for the
first candidate alone. From the second step on the inputs differ, and each candidate computes the whole network. The
denoising loss has the same input for each candidate throughout.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from pdiff_plugins.generation.denoising import HeldOut
from pdiff_plugins.generation.features import FeatureNetwork
from pdiff_plugins.generation.fid import Distance, check_counts, unrelated
from pdiff_plugins.generation.jackknife import Jackknife
from pdiff_plugins.generation.sampling import Sampler
from pdiff_plugins.images.data import Split
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pdiff import Candidates, Evaluation, Replay, progress

GROUP = 50  # candidates whose features are in memory at a time


class Bench:
    """What the candidates of one split are measured with; real images are looked at when a stage first asks for it.

    Args:
        name: of the split.
        split: real images.
        noise: what images are made of `(G, C, H, W)`.
        sampler: makes them.
        features: sees them.
        held_out: for the denoising loss.
        signature_images: how many of the images enter a signature.
        groups: of the jackknife; 0 takes the FID as it is.
        seed: of what the distances draw.

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
        held_out: HeldOut,
        signature_images: int,
        groups: int,
        seed: int,
    ):
        check_counts(name, len(split), len(noise), features.size, groups)
        self.split, self.noise, self.sampler, self.features = split, noise, sampler, features
        self.held_out, self.signature_images = held_out, min(signature_images, len(noise))
        self.groups, self.seed = groups, seed

    @cached_property
    def real(self) -> Tensor:
        """The features of the real images `(R, F)`."""
        return torch.cat([self.features(pixels)[0] for _, pixels, _ in self.split.batches()])

    @cached_property
    def distance(self) -> Distance:
        """What compares features with those of the real images."""
        return Distance(self.real, min(len(self.real), len(self.noise)), self.seed)

    @cached_property
    def jackknife(self) -> Jackknife:
        """What gives the FID its pseudo-values."""
        return Jackknife(self.real, self.groups, self.seed)

    @cached_property
    def unit(self) -> float:
        """The mean distance between the features of two different real images."""
        return unrelated(self.real)


def fid_of_noise(bench: Bench) -> float:
    """Return the FID, by the jackknife, of the noises themselves: of a network that has learnt nothing."""
    batches = bench.noise.clamp(-1, 1).split(bench.split.eval_batch)
    return bench.jackknife(torch.cat([bench.features(batch)[0] for batch in batches])).mean().item()


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


def losses(model: nn.Module, candidates: Candidates, held_out: HeldOut) -> list[float]:
    """Return each candidate's mean squared error on the held-out images."""
    replay = Replay(model.eval(), candidates, lambda batch: model(*batch).sample)
    return [mse_loss(predicted, held_out.target).item() for predicted in replay((held_out.noisy, held_out.t))]


def evaluations(model: nn.Module, candidates: Candidates, bench: Bench, split: str) -> Iterator[Evaluation]:
    """Yield FID, its pseudo-values and signature of each candidate, with further figures."""
    batches = math.ceil(len(bench.noise) / bench.split.eval_batch)
    with progress(f"evaluate on {split}", len(candidates) * batches) as advance:
        for start in range(0, len(candidates), GROUP):
            yield from evaluate_group(model, candidates.take(slice(start, start + GROUP)), bench, advance)


def evaluate_group(model: nn.Module, candidates: Candidates, bench: Bench, advance) -> Iterator[Evaluation]:
    """Yield the evaluations of a few candidates; `advance` is called for each batch of images."""
    loss = losses(model, candidates, bench.held_out)
    seen = [[] for _ in candidates]
    for index, images in images_of(model, candidates, bench):
        finite = images.isfinite().all()
        seen[index].append(bench.features(images.clamp(-1, 1)) if finite else None)
        advance()
    for index, batches in enumerate(seen):
        yield evaluation(batches, loss[index], bench)


def evaluation(batches: list[tuple[Tensor, Tensor | None] | None], loss: float, bench: Bench) -> Evaluation:
    """Return what features and probabilities of a candidate's images, and its loss, amount to."""
    if None in batches:
        signature = torch.full((bench.signature_images, bench.features.size), math.inf)
        scores = torch.full((bench.groups,), math.inf, dtype=torch.float64) if bench.groups else None
        return Evaluation(math.inf, signature, scores)
    features = torch.cat([seen for seen, _ in batches])
    fid, kid = bench.distance(features)
    scores, details = None, {"KID": kid}
    if bench.groups:
        scores, details = bench.jackknife(features), {"FID_plain": fid, **details}
        fid = scores.mean().item()
    details |= {"denoising_loss": loss} if math.isfinite(loss) else {}
    if batches[0][1] is not None:
        confidence, classes = torch.cat([probabilities for _, probabilities in batches]).max(1)
        details |= {"confidence": confidence.mean().item(), "classes": float(len(classes.unique()))}
    return Evaluation(fid, features[: bench.signature_images].cpu() / bench.unit, scores, details)
