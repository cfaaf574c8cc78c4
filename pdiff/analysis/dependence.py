"""How much successive checkpoints of a training depend on each other, and what may count as independent draws.

The integrated autocorrelation time tau: N rows of a series tell as much as N / tau independent ones (Sokal, 1997,
"Monte Carlo methods in statistical mechanics", section 3).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 5  # times tau: Sokal's compromise between what is cut off and the noise of what is summed
FEWEST_UNITS = 4  # from whose spread a variance follows
INDEPENDENT = 1.5  # below this tau a series is none: files that came in any order


def integrated_time(products: NDArray, branches: NDArray, cautious: bool = False) -> float:
    """Return the `time_of_series` of rows `(N,)` of several branches, from their inner products.

    Args:
        products: inner products `(N, N)` of the rows' deviations from the average of all rows.
        branches: which branch each row belongs to `(N,)`; the rows of a branch are in their order.
        cautious: see `time_of_series`.
    """
    rows = (np.flatnonzero(branches == label) for label in np.unique(branches))
    return time_of_series([products[np.ix_(own, own)] for own in rows], cautious)


def time_of_series(series: Sequence[NDArray], cautious: bool = False) -> float:
    """Return tau = 1 + 2 sum_k rho_k in rows, from 1 to the length of the longest branch; 1 of rows that never differ.

    rho_k is the mean product of two rows of one branch that lie k apart, over the mean product of a row with itself.
    The sum ends at the smallest lag M >= 5 tau(M), or at the last lag where there is none. The deviations of a series
    add up to nothing, so that the later rho_k of a short one are negative and eat up the first: no interval may follow
    from that.

    Args:
        series: for each branch the inner products `(n, n)` of its rows' deviations from the average of all rows.
        cautious: end the sum before the first rho_k that is not positive (Geyer, 1992).
    """
    variance = np.concatenate([np.diagonal(own) for own in series]).mean()
    if variance <= 0:
        return 1.0
    longest, tau = max(map(len, series)), 1.0
    for lag in range(1, longest):
        pairs = sum(max(len(own) - lag, 0) for own in series)
        rho = sum(np.trace(own, lag) for own in series) / pairs / variance
        if cautious and rho <= 0:
            break
        tau += 2 * rho
        if lag >= WINDOW * tau:
            break
    return float(np.clip(tau, 1, longest))


def independent_units(
    tau: float, branches: NDArray, lineages: NDArray, fewest: int = FEWEST_UNITS
) -> NDArray[np.int_] | None:
    """Return which rows may count as one independent draw `(N,)`; None where there would be fewer than `fewest`.

    The lineages, else the branches, else successive blocks of at least 2 tau rows inside each branch. Each row of a
    single series that shows no dependence is a draw of its own.

    Args:
        tau: integrated time of the rows; see `integrated_time`.
        branches: which branch each row belongs to `(N,)`.
        lineages: which initialisation each row descends from `(N,)`.
        fewest: units.
    """
    alone = len(np.unique(branches)) == 1 and tau < INDEPENDENT
    for units in (lineages, branches, np.arange(len(branches)) if alone else blocks(tau, branches)):
        if len(np.unique(units)) >= fewest:
            return units
    return None


def blocks(tau: float, branches: NDArray) -> NDArray[np.int_]:
    """Return the number of each row's block `(N,)`: of nearly equal lengths, at least 2 tau, or else a whole branch."""
    found, started = np.empty(len(branches), dtype=int), 0
    for label in np.unique(branches):
        rows = np.flatnonzero(branches == label)
        count = max(len(rows) // math.ceil(2 * tau), 1)
        found[rows] = started + np.arange(len(rows)) * count // len(rows)
        started += count
    return found
