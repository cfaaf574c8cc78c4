"""The gate of the evaluation: how many of the generated networks are dead, and where the fault lies if many are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pdiff.analysis.dead import dead
from pdiff.run.check import Check, in_words
from pdiff.run.record import read_gates
from pdiff.run.results import read_metrics
from pdiff.task.task import Metric
from pdiff.weights.origin import COLLECTED, Origin, origin_of

if TYPE_CHECKING:
    from pdiff.run.run import Run

MOST_DEAD = 0.1
TAIL = 0.05


def gate_candidates(run: "Run") -> list[Check]:
    """Return the check of the generated candidates."""
    generated, trained = (read_metrics(run, name) for name in ("generated", "oracle" if run.conditional else "trained"))
    lost = dead(generated, trained, run.built.metric)
    earlier, origin = read_gates(run.directory), origin_of(run.population.provenance)
    return [check_alive(generated["select"], trained["select"], lost, run.built.metric, earlier, origin)]


def check_alive(
    generated: NDArray,
    trained: NDArray,
    lost: NDArray,
    metric: Metric,
    earlier: Sequence[Mapping[str, Any]],
    origin: Origin = COLLECTED,
) -> Check:
    """Return whether most of the generated candidates work.

    Args:
        generated: their metrics on `select` `(M,)`.
        trained: those of the trained `(N,)`.
        lost: which of the generated are dead `(M,)`; see `pdiff.analysis.dead`.
        metric: the task's.
        earlier: records of the checks of the stages before.
        origin: of the population.
    """
    share = float(lost.mean())
    tails = [tail(metrics, metric) for metrics in (generated, trained)]
    figures = {"dead": int(lost.sum()), "share": share, "tail": tails[0], "tail_of_trained": tails[1]}
    found = (
        f"{figures['dead']} of {len(generated)} generated are dead; one in twenty has {metric.name} "
        f"{in_words(tails[0])} or worse (trained: {in_words(tails[1])})"
    )
    if share < MOST_DEAD:
        return Check("alive", True, found, figures)
    line = f"got {found}, expected fewer than {MOST_DEAD:.0%} dead. {suspect(earlier, origin)}"
    return Check("alive", False, line, figures)


def tail(metrics: Sequence[float], metric: Metric) -> float:
    """Return the metric of the candidate that a twentieth of all are no better than."""
    ordered = sorted(metrics, reverse=not metric.higher_is_better)
    return ordered[int(TAIL * len(ordered))]


def suspect(earlier: Sequence[Mapping[str, Any]], origin: Origin) -> str:
    """Return words for which part to look at, from the records of the checks before."""
    failed = [record for record in earlier if not record["passed"]]
    if failed:
        return f"The check {failed[0]['stage']}/{failed[0]['name']} failed before: mend that first."
    if any(record["name"] == "decoded" and "lost" in record["figures"] for record in earlier):
        return (
            "Decoded checkpoints are alive and latents pass, so the codec fails between checkpoints: raise "
            "engine.autoencoder.latent_noise, or lower engine.autoencoder.latent."
        )
    return (
        "Latents pass, and the codec was not measured on held-out checkpoints: look at engine.autoencoder, or "
        f"{origin.more}."
    )
