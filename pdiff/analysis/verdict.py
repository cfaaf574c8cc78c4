"""The verdict: one of five kinds, by rules that are tried in order; the last always holds (docs/method.md).

1. distinct but worse: a tenth of the generated or more is dead; the rules below speak of the living.
2. copies: the generated vectors are closer to the trained ones than held-out ones are.
3. average-like: behaviour tells averages of trained ones from the trained but not from the generated, which are not
   better than those averages.
4. distinct but worse: the mean is below that of the trained.
5. better than every baseline: the mean is above that of every other source, the trained included.
6. distinct and as good: none of these.

Below and above mean an adjusted p-value below 0.05, in the direction of the metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pdiff.analysis.novelty import Averaging, Copying
from pdiff.analysis.statistics import Difference

COPIES = "copies"
AVERAGE_LIKE = "average-like"
WORSE = "distinct but worse"
AS_GOOD = "distinct and as good"
BETTER = "better than every baseline"
KINDS = (COPIES, AVERAGE_LIKE, WORSE, AS_GOOD, BETTER)

TRAINED = "trained"
GENERATED = "generated"
SIGNIFICANCE = 0.05
DEAD = 0.1  # from here on, what the living reach says little


@dataclass(frozen=True)
class Findings:
    """What the verdict follows from.

    Attributes:
        metric: its name.
        dead: fraction of the generated that are dead.
        means: the metric's mean over each source's living candidates; a source without any is left out.
        differences: the generated against each other source of `means`; `trained` must be among them, unless the
            generated are all dead.
        p_adjusted: p-values of the differences, adjusted for their number.
        copying: whether the generated vectors are copies of trained ones.
        averaging: whether the generated behave like averages of trained ones; None where these are not in `means`.
        averages: the source of these averages, with `averaging`.
    """

    metric: str
    dead: float
    means: Mapping[str, float]
    differences: Mapping[str, Difference]
    p_adjusted: Mapping[str, float]
    copying: Copying
    averaging: Averaging | None
    averages: str | None = None

    def relation(self, other: str) -> int:
        """Return 1 where the generated are better than another source, -1 where worse, 0 where neither is clear."""
        if self.p_adjusted[other] >= SIGNIFICANCE:
            return 0
        return 1 if self.differences[other].difference > 0 else -1

    def against(self, other: str) -> str:
        """Return the words that set the generated against another source."""
        found = self.differences[other]
        low, high = found.interval
        return (
            f"mean {self.metric} {self.means[GENERATED]:.4f} against {self.means[other]:.4f} of {other} "
            f"(gain {found.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"
        )


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS`, and a line that says why."""

    kind: str
    line: str


def why_dead(findings: Findings) -> str | None:
    """Return why the generated do not live, if so."""
    if findings.dead < DEAD:
        return None
    return f"{findings.dead:.0%} of the generated are dead"


def why_copies(findings: Findings) -> str | None:
    """Return why the generated are copies, if so."""
    copying = findings.copying
    if not copying.copies:
        return None
    return (
        f"the generated are {copying.own:.4g} from the nearest trained vector in the median, "
        f"held-out ones {copying.reference:.4g} (p {copying.p:.2g})"
    )


def why_average_like(findings: Findings) -> str | None:
    """Return why the generated are no more than averages, if so."""
    averaging = findings.averaging
    if averaging is None or not averaging.average_like or findings.relation(findings.averages) > 0:
        return None
    return (
        f"averages behave more like the soup than the generated in {averaging.generated:.0%} of the pairs, "
        f"than the trained in {averaging.trained:.0%}; {findings.against(findings.averages)}"
    )


def why_worse(findings: Findings) -> str | None:
    """Return why the generated are worse than the trained, if so."""
    return findings.against(TRAINED) if findings.relation(TRAINED) < 0 else None


def why_better(findings: Findings) -> str | None:
    """Return why the generated are better than all else, if so."""
    if any(findings.relation(other) <= 0 for other in findings.differences):
        return None
    closest = min(findings.differences, key=lambda other: findings.differences[other].difference)
    return f"the closest: {findings.against(closest)}"


def why_as_good(findings: Findings) -> str:
    """Return how the generated stand to every other source."""
    words = {1: "better than", 0: "no clear difference to", -1: "worse than"}
    named = {relation: [o for o in findings.differences if findings.relation(o) == relation] for relation in words}
    relations = [f"{words[relation]} {', '.join(others)}" for relation, others in named.items() if others]
    return "; ".join([findings.against(TRAINED), *relations])


RULES = (
    (WORSE, why_dead),
    (COPIES, why_copies),
    (AVERAGE_LIKE, why_average_like),
    (WORSE, why_worse),
    (BETTER, why_better),
    (AS_GOOD, why_as_good),
)


def judge(findings: Findings) -> Verdict:
    """Return the verdict: the first rule that gives a reason."""
    reasons = ((kind, why(findings)) for kind, why in RULES)
    kind, reason = next((kind, reason) for kind, reason in reasons if reason is not None)
    return Verdict(kind, f"{kind}: {reason}")
