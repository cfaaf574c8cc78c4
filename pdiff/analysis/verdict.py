"""The verdict: one of nine kinds, by rules that are tried in order; the last always holds (docs/method.md).

1. dead: a tenth of the generated or more is dead.
2. copies: they lie closer to single branches than fresh branches do, and the test's controls came out right.
3. average-like: behaviour surely tells averages of a few trained ones from the trained, and surely not from the
   generated, which are not better than those averages.
4. worse: surely worse than the trained, and not surely within the margin.
5. better: surely better than the trained and than every baseline; where a core baseline was left out: baselines left
   out.
6. saturated: the trained are so near the best value that the test set cannot tell anybody from it, and the generated
   are within the margin of them; or both err on so few test samples that even a network without an error could not be
   told from them (a sign test of five pairs has a p of .06 at least).
7. as good: surely not worse than the trained by more than the margin.
8. not decided: none of these.

The comparison with the trained is one, named before: its own interval and p count. That the generated are better than
each of several others needs no correction either, since all must be so (an intersection-union test).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pdiff.analysis.copying import Copying
from pdiff.analysis.novelty import Averaging, Novelty
from pdiff.analysis.statistics import LEVEL, SIGNIFICANCE, Difference, missing
from pdiff.weights.origin import COLLECTED, Origin

COPIES = "copies"
AVERAGE_LIKE = "average-like"
WORSE = "worse"
BETTER = "better"
AS_GOOD = "as good"
NOT_DECIDED = "not decided"
SATURATED = "saturated"
DEAD = "dead"
LEFT_OUT = "baselines left out"
KINDS = (DEAD, COPIES, AVERAGE_LIKE, WORSE, BETTER, LEFT_OUT, SATURATED, AS_GOOD, NOT_DECIDED)

TRAINED = "trained"
GENERATED = "generated"
FEW_ERRORS = 5  # test samples that all tell for one of two networks: p is .06 in a sign test, of six .03
MOST_DEAD = 0.1  # from here on, what the living reach says little


@dataclass(frozen=True)
class Findings:
    """What the verdict follows from.

    Attributes:
        metric: its name.
        dead: fraction of the generated that are dead.
        means: the metric's mean over each source's candidates.
        differences: the generated against each other source of `means`; `trained` must be among them, unless the
            generated are all dead.
        margin: how far below the trained is as good, in the metric's units.
        room: how far the trained are from the best value there is; None where that is not known.
        errors: on how many test samples a trained and a generated network err, whichever is more; None where that is
            not known, or is no small share of them.
        lacking: the core baselines that were left out, in words.
        copying: whether the generated vectors are copies of trained ones.
        averaging: whether the generated behave like averages of trained ones; None where these are not in `means`.
        averages: the source of these averages, with `averaging`.
        novelty: whether the generated behave unlike the trained.
        origin: of the population.
    """

    metric: str
    dead: float
    means: Mapping[str, float]
    differences: Mapping[str, Difference]
    margin: float
    room: float | None
    lacking: Sequence[str]
    copying: Copying
    averaging: Averaging | None
    averages: str | None
    novelty: Novelty
    origin: Origin = COLLECTED
    errors: float | None = None

    @property
    def main(self) -> Difference:
        """The generated against the trained."""
        return self.differences[TRAINED]

    def relation(self, other: str, together: bool = True) -> int:
        """Return 1 where the generated are better than another source, -1 where worse, 0 where neither is sure.

        Args:
            other: the source.
            together: as one of all comparisons; else by itself.
        """
        found = self.differences[other]
        p = found.p_adjusted if together else found.p
        if p is None or p >= SIGNIFICANCE:
            return 0
        return 1 if found.difference > 0 else -1

    def against(self, other: str) -> str:
        """Return the words that set the generated against another source."""
        found = self.differences[other]
        means = f"{self.metric} {self.means[GENERATED]:.4f} against {self.means[other]:.4f} of {other}"
        if not found.known:
            return f"{means} (gain {found.difference:+.4f}, without an interval)"
        low, high = found.interval
        return f"{means} (gain {found.difference:+.4f}, {LEVEL:.0%} interval {low:+.4f} to {high:+.4f})"


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS`, and a line that says why."""

    kind: str
    line: str


def why_dead(findings: Findings) -> str | None:
    """Return why the generated do not live, if so."""
    if findings.dead < MOST_DEAD:
        return None
    return f"{findings.dead:.0%} of the generated are dead"


def why_copies(findings: Findings) -> str | None:
    """Return why the generated are copies, if so."""
    return findings.copying.line if findings.copying.copies else None


def why_average_like(findings: Findings) -> str | None:
    """Return why the generated are no more than averages, if so."""
    averaging = findings.averaging
    if averaging is None or not averaging.average_like or findings.relation(findings.averages, together=False) > 0:
        return None
    return (
        f"averages behave more like the soup than the generated in {averaging.generated.difference:.0%} of the pairs, "
        f"than the trained in {averaging.trained.difference:.0%}; {findings.against(findings.averages)}"
    )


def within(findings: Findings) -> bool:
    """Say whether the generated are surely not worse than the trained by more than the margin."""
    found = findings.main
    return bool(found.known and (found.interval[0] > -findings.margin or found.interval[0] == 0))


def why_worse(findings: Findings) -> str | None:
    """Return why the generated are worse than the trained, if so."""
    if findings.relation(TRAINED, together=False) >= 0 or within(findings):
        return None
    return findings.against(TRAINED)


def beats_all(findings: Findings) -> bool:
    """Say whether the generated are surely better than every other source."""
    return all(findings.relation(other, together=False) > 0 for other in findings.differences)


def why_better(findings: Findings) -> str | None:
    """Return why the generated are better than all else, if so."""
    if findings.lacking or not beats_all(findings):
        return None
    closest = min(findings.differences, key=lambda other: findings.differences[other].difference)
    return f"than the trained and every baseline; the closest: {findings.against(closest)}"


def why_left_out(findings: Findings) -> str | None:
    """Return which baselines lack for a verdict that would else be better than all."""
    if not findings.lacking or not beats_all(findings):
        return None
    return f"better than what there is, but without {', '.join(findings.lacking)}; {findings.against(TRAINED)}"


def why_saturated(findings: Findings) -> str | None:
    """Return why nobody could be better, if so."""
    found, room, errors = findings.main, findings.room, findings.errors
    if errors is not None and errors <= FEW_ERRORS:
        return (
            f"no room to tell: {errors:.0f} errors on the test samples, where not even a network without one could be "
            f"told from the trained; {findings.against(TRAINED)}"
        )
    if room is None or not found.known or not within(findings):
        return None
    reach = found.interval[1] - found.difference
    if room > reach:
        return None
    return f"the trained leave {room:.4f} of {findings.metric}, which this test cannot tell from none; " + (
        findings.against(TRAINED)
    )


def why_as_good(findings: Findings) -> str | None:
    """Return why the generated are as good as the trained, if so."""
    if not within(findings):
        return None
    words = f"{findings.against(TRAINED)}, above the margin of {-findings.margin:+.4f}"
    relation = findings.relation(TRAINED, together=False)
    if relation > 0:
        unbeaten = [other for other in findings.differences if findings.relation(other, together=False) <= 0]
        return f"{words}: better than the trained, but not surely than {', '.join(unbeaten)}"
    return f"{words}: worse, but by less than the margin" if relation < 0 else words


def what_to_do(found: Difference, origin: Origin) -> str:
    """Return what would give more of what was too few for a test, where that is known."""
    ways = {TRAINED: origin.more, GENERATED: "raise generate.num or fit.repeats"}
    todo = [way for name, way in ways.items() if any(what.endswith(f" of {name}") for what in found.untold)]
    return f": {'; '.join(todo)}" if todo else ""


def why_not_decided(findings: Findings) -> str:
    """Return what would decide."""
    found = findings.main
    words = f"{findings.against(TRAINED)}, margin {-findings.margin:+.4f}"
    if not found.known:
        todo = what_to_do(found, findings.origin)
        return f"{words}; too few independent {' and '.join(found.untold)} for a test{todo}"
    distance = max(found.difference + findings.margin, -found.difference)
    if distance <= 0 or not found.variance:
        return words
    return f"{words}; {missing(found, distance)}"


RULES = (
    (DEAD, why_dead),
    (COPIES, why_copies),
    (AVERAGE_LIKE, why_average_like),
    (WORSE, why_worse),
    (BETTER, why_better),
    (LEFT_OUT, why_left_out),
    (SATURATED, why_saturated),
    (AS_GOOD, why_as_good),
    (NOT_DECIDED, why_not_decided),
)
OF_QUALITY = 3  # the rules from here on ask how good the generated are, those before what they are


def others(findings: Findings) -> str:
    """Return how the generated stand to every baseline, all comparisons taken together.

    Where a comparison by itself says more, as its interval does, that is told beside its name.
    """
    words = {1: "better than", 0: "no clear difference to", -1: "worse than"}
    alone = {1: " (better if it were the only one)", 0: "", -1: " (worse if it were the only one)"}
    baselines = [other for other in findings.differences if other != TRAINED]
    said = {o: o if findings.relation(o) else o + alone[findings.relation(o, together=False)] for o in baselines}
    named = {relation: [said[o] for o in baselines if findings.relation(o) == relation] for relation in words}
    return "; ".join(f"{words[relation]} {', '.join(names)}" for relation, names in named.items() if names)


def judge(findings: Findings) -> Verdict:
    """Return the verdict: the first rule that gives a reason."""
    return first_of(RULES, findings)


def quality(findings: Findings) -> Verdict | None:
    """Return what the verdict would be of candidates that are neither copies nor averages; None of the dead."""
    return None if why_dead(findings) else first_of(RULES[OF_QUALITY:], findings)


def first_of(rules: Sequence[tuple], findings: Findings) -> Verdict:
    """Return what the first of some rules says that gives a reason."""
    reasons = ((kind, why(findings)) for kind, why in rules)
    kind, reason = next((kind, reason) for kind, reason in reasons if reason is not None)
    return Verdict(kind, f"{kind}: {reason}")
