"""Which vectors the engine was fitted to, and which it has not seen.

The neighbours of a checkpoint in its training say nearly all about it. So what is held out are whole lineages, of one
lineage whole branches, or, of one training, a block with a gap on either side.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.dependence import integrated_time
from pdiff.runtime.storage import read_json
from pdiff.weights.gram import MOST, centred_gram
from pdiff.weights.origin import COLLECTED, Origin, origin_of, sentence
from pdiff.weights.provenance import kin_labels
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run

FEWEST = 10  # checkpoints; of fewer none is held out
WHOLE, BLOCK, NONE = "branches", "block", "none"


def choose_heldout(run: "Run") -> dict[str, Any]:
    """Return what of the run's population is held out, as `heldout.json` has it; see `choose`.

    Of a population with conditions, that is `pdiff.run.splits.choose_conditions`.
    """
    vectors, provenance = run.collected.tensor(), run.collected.provenance
    branches = kin_labels(provenance)

    def time() -> float:
        begin = max(len(vectors) - MOST, 0) // 2
        own = slice(begin, begin + MOST)
        return integrated_time(centred_gram(vectors[own], run.device).cpu().numpy(), branches[own])

    found = choose(run.config.fit.heldout, branches, time, origin_of(provenance))
    if found["by"] == BLOCK and len(vectors) > MOST:
        found["line"] += f"; how they depend on each other was measured on {MOST} successive ones"
    return found


def choose(share: float, branches: NDArray, time: Callable[[], float], origin: Origin = COLLECTED) -> dict[str, Any]:
    """Return what is held out of a population.

    Args:
        share: of the population, from 0 to 0.5.
        branches: which lineage, or of one lineage which branch, each vector belongs to `(N,)`.
        time: computes the integrated time of the vectors, where there is one branch.
        origin: of the population.

    Returns:
        `rows` that are held out; `gap`, rows that are neither that nor fitted; `by`: `branches` (or lineages, whole
        ones), `block` or `none`;
        `line`: a sentence about it, for whoever reads what was measured with them.
    """
    size, count = len(branches), len(np.unique(branches))
    if share == 0:
        return nothing(size, "fit.heldout is 0. Raise it.")
    if size < FEWEST:
        return nothing(size, f"that takes at least {FEWEST}. {sentence(origin.more)}")
    if count > 1:
        return hold_branches(share, branches, origin)
    return hold_block(share, size, math.ceil(time()), origin)


def nothing(size: int, reason: str) -> dict[str, Any]:
    """Return the record of a population of `size` of which nothing is held out."""
    return {"rows": [], "gap": [], "by": NONE, "line": f"none of {size} checkpoints is held out: {reason}"}


def hold_branches(share: float, branches: NDArray, origin: Origin) -> dict[str, Any]:
    """Hold out whole branches, or lineages, evenly spaced; at least one is held out, and at least one is not."""
    total = int(branches.max()) + 1
    count = min(max(round(share * total), 1), total - 1)
    rows = np.flatnonzero(np.isin(branches, spaced(total, count)))
    if 3 * (len(branches) - len(rows)) < len(branches):
        reason = f"the other {origin.branches} are too short to fit to. Take {origin.branches} of one length."
        return nothing(len(branches), reason)
    line = f"{count} of {total} {origin.branches} are held out, {len(rows)} of {len(branches)} checkpoints"
    return {"rows": rows.tolist(), "gap": [], "by": WHOLE, "line": line}


def hold_block(share: float, size: int, time: int, origin: Origin) -> dict[str, Any]:
    """Hold out a block from the middle of one series, of at least `time` rows, with a gap of `time` on either side."""
    length = max(round(share * size), time)
    start = (size - length) // 2
    if 3 * (size - length - 2 * time) < size:
        reason = (
            f"{origin.alone}, and depend on each other over {time} steps, so that too few would be left to fit to. "
            f"{sentence(origin.apart)}"
        )
        return nothing(size, reason)
    gap = [*range(start - time, start), *range(start + length, start + length + time)]
    line = f"a block of {length} of {size} checkpoints is held out, with a gap of {time} on either side, {origin.block}"
    return {"rows": [*range(start, start + length)], "gap": gap, "by": BLOCK, "line": line}


def spaced(total: int, count: int) -> list[int]:
    """Return `count` of `total` numbers, evenly spaced."""
    return [int((place + 0.5) * total / count) for place in range(count)]


def heldout_record(run: "Run") -> dict[str, Any]:
    """Return what is held out, and why not more: `rows`, `gap`, `by`, `line`; see `choose`, and `spare`; see `thin`."""
    return read_json(run.directory.folder("fit") / "heldout.json")


def fitted_rows(run: "Run") -> list[int]:
    """Return the rows of the vectors that the engine is fitted to, F of them."""
    return rows_of(heldout_record(run), len(run.collected))


def rows_of(record: Mapping[str, Any], size: int) -> list[int]:
    """Return the rows of `size` vectors that are fitted by a record of what is not; `spare` are those of `fit.num`."""
    left_out = {*record["rows"], *record["gap"], *record.get("spare", ())}
    return [row for row in range(size) if row not in left_out]


def split_population(run: "Run") -> tuple[Rows, Rows]:
    """Return the vectors that the engine was fitted to `(F, P)`, and the held-out ones `(H, P)`; some are neither.

    Of a population with conditions these are the networks for select conditions: whoever reads of them in a gate may
    choose settings by it, and by those for unseen conditions nothing is chosen.
    """
    record, vectors = heldout_record(run), run.population.tensor()
    return Rows(vectors, fitted_rows(run)), Rows(vectors, record.get("select", record["rows"]))
