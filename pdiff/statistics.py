"""Figures of one source from the metrics of its candidates; the best is chosen on `select` and reported on `test`."""

import numpy as np
from numpy.typing import NDArray


def best_index(select: NDArray, higher_is_better: bool) -> int:
    """Return the candidate that is best on `select`; among equals, the first."""
    return int(np.argmax(select) if higher_is_better else np.argmin(select))


def ranked(select: NDArray, higher_is_better: bool, count: int) -> NDArray:
    """Return the numbers of at most `count` candidates, evenly spaced from the best on `select` to the worst."""
    ranking = np.argsort(-select if higher_is_better else select, kind="stable")
    return ranking[np.linspace(0, len(ranking) - 1, min(count, len(ranking))).round().astype(int)]


def describe(test: NDArray, higher_is_better: bool) -> dict[str, float]:
    """Return mean, standard deviation, median and worst of the metrics `(M,)` on `test`."""
    worst = test.min() if higher_is_better else test.max()
    std = test.std(ddof=1) if len(test) > 1 else 0.0
    return {"mean": test.mean(), "std": std, "median": np.median(test), "worst": worst}


def mean_interval(scores: NDArray, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (percentile) of the mean of one candidate's scores `(S,)` over samples."""
    from scipy.stats import bootstrap

    scores = np.asarray(scores, dtype=np.float64)
    if np.ptp(scores) == 0:
        return float(scores[0]), float(scores[0])
    result = bootstrap(
        (scores,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), batch=100
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
