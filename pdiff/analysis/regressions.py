"""From conditions to parameters without a generator: how seen vectors are to be combined for other conditions.

Linear and kernel ridge regression are linear in the seen vectors, so what they predict is a weighted sum of these: the
weights come from scikit-learn, fitted to unit vectors, and no vector is touched. Their settings are chosen by
cross-validation over whole groups of seen conditions, on random projections of the vectors, which keep squared errors
(Johnson and Lindenstrauss, 1984).
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pdiff.runtime.seeding import normal
from pdiff.weights.gram import centred_blocks
from pdiff.weights.vectors import Rows

PROJECTIONS = 128
COLUMNS = 2**16  # that are projected at once
FOLDS = 5
ALPHAS = np.logspace(-3, 5, 17)
KERNEL_ALPHAS = np.logspace(-3, 1, 5)
WIDTHS = np.logspace(-2.5, 0, 6)  # of the kernel, times 1 / C


def project_randomly(vectors: Rows, rng: torch.Generator, count: int = PROJECTIONS) -> NDArray:
    """Return the deviations of vectors `(N, P)` from their average on `count` random directions `(N, count)`."""
    found = torch.zeros(len(vectors), count, dtype=torch.float64)
    for _, centred in centred_blocks(vectors):
        for part in centred.split(COLUMNS, 1):
            found += part @ normal(torch.Size([part.shape[1], count]), rng).double()
    return (found / count**0.5).numpy()


def linear(degree: int) -> tuple[Any, dict[str, NDArray]]:
    """Return ridge regression on the conditions' numbers, and from degree 2 on their products, and its settings."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features = PolynomialFeatures(degree, interaction_only=False, include_bias=False)
    return make_pipeline(StandardScaler(), features, StandardScaler(), Ridge()), {"ridge__alpha": ALPHAS}


def kernel(numbers: int) -> tuple[Any, dict[str, NDArray]]:
    """Return ridge regression with a Gaussian kernel on C numbers, and its settings."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = {"kernelridge__alpha": KERNEL_ALPHAS, "kernelridge__gamma": WIDTHS / numbers}
    return make_pipeline(StandardScaler(), KernelRidge(kernel="rbf")), settings


def combination(
    model: tuple[Any, dict[str, NDArray]], seen: NDArray, groups: NDArray, targets: NDArray, wanted: NDArray
) -> tuple[NDArray, dict[str, float]]:
    """Return by what to multiply the seen vectors' deviations from their average, and the settings that were chosen.

    Args:
        model: a regression that is linear in its targets, and the settings to choose among.
        seen: conditions `(N, C)`.
        groups: of each of them `(N,)`; a fold has whole ones.
        targets: `(N, T)`, centred: what errors are measured on.
        wanted: conditions `(M, C)`.

    Returns:
        Weights `(M, N)`, and each setting's value.
    """
    from sklearn.model_selection import GridSearchCV, GroupKFold

    estimator, grid = model
    folds = GroupKFold(min(FOLDS, len(np.unique(groups))))
    search = GridSearchCV(estimator, grid, scoring="neg_mean_squared_error", cv=folds, refit=False)
    search.fit(seen, targets, groups=groups)
    estimator.set_params(**search.best_params_)
    weights = estimator.fit(seen, np.eye(len(seen))).predict(wanted)
    chosen = {name.rpartition("__")[2]: float(value) for name, value in search.best_params_.items()}
    return weights, chosen


def prediction(
    model: tuple[Any, dict[str, NDArray]], seen: NDArray, groups: NDArray, targets: NDArray, wanted: NDArray
) -> tuple[NDArray, NDArray]:
    """Return what a regression says of the wanted conditions `(M, T)`, and what it leaves of the targets `(N, T)`.

    Args:
        model, seen, groups, targets, wanted: as for `combination`; the regression need not be linear in its targets.
    """
    from sklearn.model_selection import GridSearchCV, GroupKFold

    estimator, grid = model
    folds = GroupKFold(min(FOLDS, len(np.unique(groups))))
    search = GridSearchCV(estimator, grid, scoring="neg_mean_squared_error", cv=folds)
    search.fit(seen, targets, groups=groups)
    return search.predict(wanted), targets - search.predict(seen)


def by_network(
    seen: NDArray, coordinates: NDArray, wanted: NDArray, hidden: tuple[int, ...], seed: int
) -> NDArray:
    """Return the coordinates `(M, K)` that a small network predicts for other conditions.

    scikit-learn's perceptron with Adam, which stops when the error on a tenth of the seen ones no longer falls.

    Args:
        seen: conditions `(N, C)`.
        coordinates: of the seen vectors `(N, K)`.
        wanted: conditions `(M, C)`.
        hidden: units of each hidden layer.
        seed: of weights, order and the tenth.
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    stops = len(seen) >= 10 * FOLDS
    learnt = len(seen) - math.ceil(0.1 * len(seen)) if stops else len(seen)  # as scikit-learn counts a tenth
    network = MLPRegressor(
        hidden_layer_sizes=hidden, batch_size=min(64, learnt), early_stopping=stops, n_iter_no_change=25,
        max_iter=1000, random_state=seed % 2**32,
    )  # fmt: skip
    if not coordinates.any():
        return np.zeros((len(wanted), coordinates.shape[1]))
    unit = float(np.sqrt((coordinates**2).mean()))
    scaled = TransformedTargetRegressor(network, func=lambda y: y / unit, inverse_func=lambda y: y * unit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        known = coordinates if coordinates.shape[1] > 1 else coordinates[:, 0]
        found = make_pipeline(StandardScaler(), scaled).fit(seen, known).predict(wanted)
    return found.reshape(len(wanted), coordinates.shape[1])


def nearest_weights(distances: NDArray, k: int, noise: NDArray) -> NDArray:
    """Return weights `(M, N)` of 1 / k for the k nearest of N, equals in the order of `noise` `(M, N)`."""
    order = np.lexsort((noise, distances), axis=1)[:, :k]
    weights = np.zeros(distances.shape)
    np.put_along_axis(weights, order, 1 / order.shape[1], axis=1)
    return weights


def between_weights(wanted: NDArray, first: NDArray, second: NDArray) -> NDArray:
    """Return how far along the line from a first to a second condition the wanted one lies `(M,)`, from 0 to 1.

    Args:
        wanted, first, second: `(M, C)`, in one scale.
    """
    line = second - first
    length = (line**2).sum(1)
    return np.clip(((wanted - first) * line).sum(1) / np.where(length > 0, length, 1.0), 0.0, 1.0)
