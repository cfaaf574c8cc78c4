"""Inner products of vectors' deviations from an average, block of columns by block, in double precision."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pdiff.weights.vectors import CPU, Rows, Vectors, brought, column_blocks, mean, parts, pieces

MOST = 4096  # vectors whose inner products are computed, which are then 128 MiB
SURPLUS, PASSES, ROWS = 16, 6, 4096  # axes beyond those that are asked for, passes, and rows at once, of `leading_axes`


def centred_blocks(vectors: Tensor | Rows, device: torch.device | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield the columns and, in double precision, the deviations `(N, C)` from their average in float32.

    They are computed on a device; default: where the vectors lie.
    """
    for place in column_blocks(vectors):
        block = brought(vectors[:, place], device or vectors.device)
        yield place, (block - block.mean(0)).double()


def centred_gram(vectors: Tensor | Rows, device: torch.device | None = None) -> Tensor:
    """Return the inner products `(N, N)` of the deviations of vectors `(N, P)` from their average.

    They are computed on a device, and stay there; default: where the vectors lie.
    """
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=device or vectors.device)
    for _, centred in centred_blocks(vectors, device):
        gram += centred @ centred.T
    return gram


def squared_distances(gram: Tensor) -> Tensor:
    """Return the squared distances `(N, N)` of vectors with these inner products `(N, N)`."""
    squares = gram.diagonal()
    return squares[:, None] + squares - 2 * gram


def leading_axes(vectors: Tensor | Rows, count: int) -> tuple[Tensor, Tensor]:
    """Return the first principal axes `(count, P)`, of length 1, and the variance along each, largest first.

    By subspace iteration (Halko, Martinsson and Tropp, 2011, section 4.5) in `PASSES` passes over rows, in memory that
    grows with P alone: for so many vectors that their inner products are too many. Axes whose variances are close to
    each other come out mixed.
    """
    average, size = mean(vectors), vectors.shape[1]
    start = torch.randn(size, min(count + SURPLUS, size), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(average)).Q
    for _ in range(PASSES):
        basis, variances = iterate(vectors, average, basis)
    return basis.T[:count], variances[:count] / max(len(vectors) - 1, 1)


def axes_of_many(vectors: Tensor | Rows, count: int) -> tuple[Tensor, Tensor]:
    """Return the first principal axes `(count, P)` of so many vectors that their inner products are too many.

    And the variance along each, largest first: of no more than `MOST` coordinates from their covariance, else by
    `leading_axes`.
    """
    size = vectors.shape[1]
    if size > MOST:
        return leading_axes(vectors, count)
    average, covariance = mean(vectors), torch.zeros(size, size, dtype=torch.float64, device=vectors.device)
    for part in parts(vectors, ROWS):
        centred = (part - average).double()
        covariance += centred.T @ centred
    variances, axes = torch.linalg.eigh(covariance / max(len(vectors) - 1, 1))
    return axes.flip(1).T[:count].to(average), variances.flip(0).clamp(min=0)[:count]


def scaled_axes(vectors: Tensor | Rows, count: int) -> Tensor:
    """Return the first principal axes `(K, P)`, each as long as the standard deviation along it, largest first.

    With X the deviations of F vectors from their average and u a leading eigenvector of X X^T, an axis is
    X^T u / sqrt(F - 1); of many vectors they come from `axes_of_many`. K is `count`, or F - 1 where that is less.
    """
    count = min(count, max(len(vectors) - 1, 1))
    if len(vectors) > MOST:
        axes, variances = axes_of_many(vectors, count)
        return axes * variances.sqrt()[:, None].to(axes)
    leading = torch.linalg.eigh(centred_gram(vectors)).eigenvectors[:, -count:].flip(1)
    axes = torch.cat([(leading.T @ centred).float() for _, centred in centred_blocks(vectors)], 1)
    return axes / max(len(vectors) - 1, 1) ** 0.5


def iterate(vectors: Tensor | Rows, average: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the covariance times a basis `(P, K)`, made orthogonal and turned to the principal axes in it."""
    products = torch.zeros(basis.shape, dtype=torch.float64, device=basis.device)
    inside = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64, device=basis.device)
    for part in parts(vectors, ROWS):
        centred = part - average
        scores = centred @ basis
        products += (centred.T @ scores).double()
        inside += scores.double().T @ scores.double()
    variances, turn = torch.linalg.eigh(inside)
    axes = torch.linalg.qr(products @ turn.flip(1)).Q
    return axes.to(basis.dtype), variances.flip(0)


def centred_products(vectors: Vectors, trained: Tensor | Rows, device: torch.device = CPU) -> Tensor:
    """Return the inner products `(M, N)` of two sets' deviations from the average of `trained` `(N, P)`.

    They are computed on a device, block by block, and come back to the CPU.
    """
    return torch.cat([_products(piece, trained, device) for piece in pieces(vectors)])


def _products(piece: Tensor | Rows, trained: Tensor | Rows, device: torch.device) -> Tensor:
    products = torch.zeros(len(piece), len(trained), dtype=torch.float64, device=device)
    for place in column_blocks(trained, piece):
        own, block = brought(piece[:, place], device), brought(trained[:, place], device)
        average = block.mean(0)
        products += (own - average).double() @ (block - average).double().T
    return products.cpu()
