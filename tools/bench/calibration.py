"""How often the verdict is right: pdiff's comparison on made-up runs whose truth is known.

    python tools/bench/calibration.py --draws 200

A population is a few Ornstein-Uhlenbeck paths, one a branch, around a common average. What a candidate gets right
follows from its vector alone, so that neighbours in a path err alike: candidate x is right on sample (w, d) where
`t(x) sqrt(1 + s^2 |x - mean|^2) + s w (x - mean) > d`, and both w and d are white. Over all samples its accuracy is
therefore exactly Phi(t(x)); t is linear along one direction and falls off with the distance from the average.
"""

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.judgement import Case, find
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.statistics import mean_interval
from pdiff.analysis.verdict import judge
from pdiff.engine.autoencoder import PrincipalAutoencoder
from pdiff.engine.whitening import Whitening
from pdiff.runtime.errors import command
from pdiff.runtime.seeding import generator
from pdiff.task.similarity import error_iou
from pdiff.task.task import Metric

SIZE, MAJOR = 60, 10  # coordinates P, and directions that hold 95 % of the variance, which is 1 in all
TIME = 40  # integrated autocorrelation time of a path, in steps
DECAY = (TIME - 1) / (TIME + 1)  # correlation of one step with the next
LEVEL, SLOPE, CURVATURE = 1.09, 0.03, 0.009  # of t: accuracy .862, its standard deviation .0066, a soup gains .0020
DIVERSITY = 0.1  # s: two independent candidates share 83 % of their errors
SHIFT = float(np.hypot(SLOPE, CURVATURE * (2 / SIZE) ** 0.5) / SLOPE)  # by which t gains its standard deviation
BEHIND = 2.0  # standard deviations of the good direction at which a common start lies
COPIED = 0.35  # noise on a copy in standard deviations; a quarter of what lies between independent vectors
CANDIDATES, MEMBERS, LATENT, LATENT_NOISE = 200, 16, 32, 0.5
SAMPLES = {"select": 300, "test": 1000}
RUNS = 1000  # behind a true mean
MARGIN = 0.5  # standard deviations of the trained's true accuracy
SHIFTS = {"better": 1, "worse": -1, "far-better": 2, "far-worse": -2}  # standard deviations of the trained
TRUTHS = ("copies", "decoded", "averages", "fresh", "equal", *SHIFTS)
UNKNOWN = (-np.inf, np.inf)  # the interval of what the comparison says it cannot tell
TYPES = {"soup16": "soup_of", "noise05": "relative_noise", "noise15": "relative_noise"}
HEAD = "| truth | gain, margins | verdicts | gain above 0 | below 0 | holds the gain | holds the trained's mean |"


@dataclass(frozen=True)
class Scenario:
    """How a population comes about, and which of it is held out."""

    branches: int = 6
    steps: int = 50  # of each branch
    start: str = "stationary"  # or common: every path begins at one point, which is worse
    heldout: str = "branches"  # a third; of one branch a block in the middle, with gaps. Or steps: ten, evenly spaced


@dataclass(frozen=True)
class Source:
    """The candidates of one source."""

    vectors: Tensor  # (M, P)
    tensors: dict[str, Tensor]  # test.scores and test.signature: which samples are right, and wrong, (M, S)
    metrics: dict[str, NDArray]  # accuracy (M,), by split
    parents: Tensor | None  # rows of the population that each was made of (M, K); None: of none in particular


@dataclass(frozen=True)
class Draw:
    """One made-up run."""

    population: Tensor  # (N, P)
    provenance: list[dict[str, int]]  # of each row
    fitted: list[int]  # rows that the codec and what was generated know
    heldout: list[int]  # rows that they do not
    decoded: Callable[[Tensor], Tensor]  # from vectors to what the codec makes of them
    sources: dict[str, Source]
    trained_on_test: float  # the true mean of the trained, on these test samples


@dataclass(frozen=True)
class Judged:
    """What the comparison says of a draw: the verdict's kind, and two 95 % intervals."""

    kind: str
    gain: tuple[float, float]  # of the generated's mean less the trained's
    trained: tuple[float, float]  # of the trained's mean


@cache
def world() -> tuple[Tensor, Tensor]:
    """Return the average vector `(P,)` and the root of the covariance `(P, P)`."""
    rng = generator(0, "world")
    turn = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=rng)).Q
    variance = torch.cat([torch.full((MAJOR,), 0.95 / MAJOR), torch.full((SIZE - MAJOR,), 0.05 / (SIZE - MAJOR))])
    return 0.3 * torch.randn(SIZE, generator=rng), variance.sqrt()[:, None] * turn


def placed(z: Tensor) -> Tensor:
    """Return the vectors that white z `(..., P)` stand for."""
    average, root = world()
    return average + z @ root


def ability(vectors: Tensor) -> Tensor:
    """Return t `(M,)`."""
    average, root = world()
    z = (vectors - average) @ root.T / root.square().sum(1)
    return LEVEL + SLOPE * z[:, :MAJOR].sum(1) / MAJOR**0.5 - CURVATURE * (z.square().mean(1) - 1)


def accuracy(vectors: Tensor) -> Tensor:
    """Return the accuracy over all samples that could be `(M,)`, exactly."""
    return torch.special.ndtr(ability(vectors).double())


def right(vectors: Tensor, samples: Tensor) -> Tensor:
    """Return what each vector gets right `(M, S)` of samples `(S, P + 1)`, their w and d."""
    away = DIVERSITY * (vectors - world()[0])
    margin = ability(vectors) * (1 + away.square().sum(1)).sqrt()
    return away @ samples[:, :-1].T + margin[:, None] > samples[:, -1]


def toward_good(amount: float) -> Tensor:
    """Return z `(P,)` that lies so many standard deviations along the direction of better accuracy."""
    return amount * torch.cat([torch.full((MAJOR,), MAJOR**-0.5), torch.zeros(SIZE - MAJOR)])


def paths(scenario: Scenario, rng: torch.Generator) -> Tensor:
    """Return a population `(N, P)`, branch by branch."""
    shape = scenario.branches, SIZE
    z = torch.randn(shape, generator=rng) if scenario.start == "stationary" else toward_good(-BEHIND).expand(shape)
    steps = []
    for _ in range(scenario.steps):
        z = DECAY * z + (1 - DECAY**2) ** 0.5 * torch.randn(shape, generator=rng)
        steps.append(z)
    return placed(torch.stack(steps, 1).flatten(0, 1))


def independent(count: int, scenario: Scenario, rng: torch.Generator) -> Tensor:
    """Return vectors `(count, P)` of paths that have nothing to do with each other, every step as often."""
    z = torch.randn(count, SIZE, generator=rng)
    if scenario.start == "stationary":
        return placed(z)
    kept = DECAY ** (1 + torch.arange(count) % scenario.steps)[:, None]
    return placed(kept * toward_good(-BEHIND) + (1 - kept**2).sqrt() * z)


def split(scenario: Scenario) -> tuple[list[int], list[int]]:
    """Return the rows that are fitted, and those that are held out."""
    rows, count = list(range(scenario.branches * scenario.steps)), scenario.branches * scenario.steps
    if scenario.heldout == "steps":
        heldout, gap = {int((place + 0.5) * count / 10) for place in range(10)}, set()
    elif scenario.branches > 1:
        number = max(1, scenario.branches // 3)
        chosen = {int((place + 0.5) * scenario.branches / number) for place in range(number)}
        heldout, gap = {row for row in rows if row // scenario.steps in chosen}, set()
    else:
        first, last = int(0.35 * count), int(0.65 * count)
        heldout, gap = set(rows[first:last]), {*rows[first - TIME : first], *rows[last : last + TIME]}
    return [row for row in rows if row not in heldout | gap], sorted(heldout)


def fit(vectors: Tensor) -> tuple[PrincipalAutoencoder, Whitening]:
    """Return the codec and the whitening of its latents."""
    codec, whitening = PrincipalAutoencoder(SIZE, LATENT, LATENT_NOISE), Whitening(LATENT)
    codec.fit(vectors)
    whitening.fit(codec.encode(vectors))
    return codec, whitening


def groups(count: int, members: int, rng: torch.Generator) -> Tensor:
    """Return groups of `count` rows `(CANDIDATES, members)`, drawn without repetition inside a group."""
    return torch.rand(CANDIDATES, count, generator=rng).argsort(1)[:, :members]


def generate(truth: str, fitted: Tensor, codec: PrincipalAutoencoder, rng: torch.Generator) -> Tensor:
    """Return generated vectors `(CANDIDATES, P)` of which the truth is known."""
    if truth == "averages":
        return fitted[groups(len(fitted), MEMBERS, rng)].mean(1)
    z = torch.randn(CANDIDATES, SIZE, generator=rng)
    if truth not in ("copies", "decoded"):
        return placed(z + toward_good(SHIFTS.get(truth, 0) * SHIFT))
    copies = fitted[groups(len(fitted), 1, rng)[:, 0]] + COPIED * z @ world()[1]
    return copies if truth == "copies" else codec.decode(codec.encode(copies))


def baselines(population: Tensor, fitted: list[int], rng: torch.Generator) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return vectors and parents of the sources that cost nothing, by name."""
    known = population[fitted]
    codec, whitening = fit(known)
    rows, count = torch.tensor(fitted), len(fitted)
    spaced = torch.linspace(0, count - 1, CANDIDATES).round().long()[:, None]
    several, *single = (groups(count, members, rng) for members in (MEMBERS, 1, 1))
    diagonal, *noise = torch.randn(3, CANDIDATES, SIZE, generator=rng)
    latents = whitening.inverse(torch.randn(CANDIDATES, LATENT, generator=rng))
    made = {
        "trained": (population, torch.arange(len(population))[:, None]),
        "codec": (codec.decode(codec.encode(known[spaced[:, 0]])), rows[spaced]),
        "soup": (known.mean(0, keepdim=True), None),
        "soup16": (known[several].mean(1), rows[several]),
        "gaussian": (known.mean(0) + known.std(0) * diagonal, None),
        "latent_gaussian": (codec.decode(latents), None),
    }
    for name, scale, parents, white in zip(("noise05", "noise15"), (0.05, 0.15), single, noise, strict=True):
        near = known[parents[:, 0]]
        made[name] = near + scale * near.std(1, correction=0, keepdim=True) * white, rows[parents]
    return made


def draw(truth: str, seed: int, scenario: Scenario) -> Draw:
    """Return a made-up run; the same one for the same arguments."""
    rng = generator(seed, "draw", truth)
    population, (fitted, heldout) = paths(scenario, rng), split(scenario)
    samples = {name: torch.randn(count, SIZE + 1, generator=rng) for name, count in SAMPLES.items()}
    codec, n = fit(population[fitted])[0], scenario.steps
    made = {**baselines(population, fitted, rng), "generated": (generate(truth, population[fitted], codec, rng), None)}
    sources = {}
    for name, (vectors, parents) in made.items():
        scores = {part: right(vectors, drawn) for part, drawn in samples.items()}
        tensors = {"test.scores": scores["test"], "test.signature": ~scores["test"]}
        metrics = {part: found.double().mean(1).numpy() for part, found in scores.items()}
        sources[name] = Source(vectors, tensors, metrics, parents)
    return Draw(
        population=population,
        provenance=[{"network": 0, "branch": row // n, "step": row % n} for row in range(len(population))],
        fitted=fitted,
        heldout=heldout,
        decoded=lambda vectors: codec.decode(codec.encode(vectors)),
        sources=sources,
        trained_on_test=right(independent(5000, scenario, rng), samples["test"]).double().mean().item(),
    )


@cache
def truth_of(truth: str, scenario: Scenario) -> dict[str, float]:
    """Return the true mean of `trained` and `generated` over all runs and samples that could be, and their `margin`."""
    rng, fitted = generator(0, "truth", truth), split(scenario)[0]
    means = []
    for _ in range(RUNS):
        known = paths(scenario, rng)[fitted]
        means.append(accuracy(generate(truth, known, fit(known)[0], rng)).mean())
    trained = accuracy(independent(1_000_000, scenario, generator(0, "truth", "trained")))
    own = torch.stack(means).mean()
    return {"trained": trained.mean().item(), "generated": own.item(), "margin": MARGIN * trained.std().item()}


def results(name: str, source: Source) -> SourceResults:
    """Return a source as the comparison reads it."""
    single = source.parents is not None and source.parents.shape[1] == 1
    return SourceResults(
        name,
        source.vectors,
        source.tensors,
        source.metrics,
        np.zeros(len(source.vectors), dtype=bool),
        type=TYPES.get(name, name),
        parents=source.parents[:, 0].numpy() if single else None,
    )


def case_of(draw: Draw) -> Case:
    """Return what the comparison of a run would look at."""
    trained = draw.sources["trained"].tensors["test.signature"]
    tables = {name: error_iou(source.tensors["test.signature"], trained) for name, source in draw.sources.items()}
    soup = draw.sources["soup"].tensors["test.signature"]
    to_soup = {
        name: error_iou(source.tensors["test.signature"], soup)[:, 0].numpy() for name, source in draw.sources.items()
    }
    return Case(
        metric=Metric("accuracy", chance=0.1, best=1.0),
        sources={name: results(name, source) for name, source in draw.sources.items()},
        similarities=tables,
        to_soup=to_soup,
        places={},
        population=draw.population,
        provenance=draw.provenance,
        fitted=draw.fitted,
        heldout=draw.heldout,
        decode=lambda rows: draw.decoded(rows[:]),
        margin=MARGIN,
        seed=0,
        averages="soup16",
    )


def judged(draw: Draw) -> Judged:
    """Return what the comparison says of a made-up run."""
    case = case_of(draw)
    findings = find(case)
    intervals = findings.main.interval, mean_interval(case.values("trained"))
    return Judged(judge(findings).kind, *(interval or UNKNOWN for interval in intervals))


def row(truth: str, means: dict[str, float], trained: NDArray, found: Sequence[Judged]) -> str:
    """Return a truth's line of the table; `trained` are the true means on each draw's test samples."""
    gain = means["generated"] - means["trained"]
    low, high = np.array([one.gain for one in found]).T
    first, last = np.array([one.trained for one in found]).T
    held = [(low <= gain) & (gain <= high), (first <= trained) & (trained <= last)]
    kinds = Counter(one.kind for one in found).most_common()
    verdicts = ", ".join(f"{kind} {count / len(found):.1%}" for kind, count in kinds)
    cells = [
        truth,
        f"{gain / means['margin']:+.2f}",
        verdicts,
        *(f"{share.mean():.1%}" for share in (low > 0, high < 0, *held)),
    ]
    return f"| {' | '.join(cells)} |"


def judge_one(truth: str, seed: int, scenario: Scenario) -> tuple[float, Judged]:
    """Return the trained's true mean on the test samples of a draw, and what the comparison says of the draw."""
    drawn = draw(truth, seed, scenario)
    return drawn.trained_on_test, judged(drawn)


@command()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="of each truth (default: %(default)s)")
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=TRUTHS, help="what was generated (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (default: %(default)s)")
    parser.add_argument("--branches", type=int, default=6, help="paths (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each path (default: %(default)s)")
    parser.add_argument("--start", choices=("stationary", "common"), default="stationary", help="of the paths")
    arguments = parser.parse_args()
    scenario = Scenario(arguments.branches, arguments.steps, arguments.start)
    print(f"{arguments.draws} draws of each truth, {scenario}; shares of 95 % intervals")
    print(HEAD, "|" + "---|" * (HEAD.count("|") - 1), sep="\n")
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, torch.set_num_threads, (1,)) as pool:
        true = pool.starmap(truth_of, [(truth, scenario) for truth in arguments.truths])
        for truth, means in zip(arguments.truths, true, strict=True):
            runs = [(truth, arguments.seed + number, scenario) for number in range(arguments.draws)]
            trained, found = zip(*pool.starmap(judge_one, runs), strict=True)
            print(row(truth, means, np.array(trained), found), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
