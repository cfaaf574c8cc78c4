"""Inner products of vectors' deviations from an average, block of columns by block, in double precision."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pdiff.weights.vectors import Rows, Vectors, column_blocks, pieces


def centred_blocks(vectors: Tensor | Rows) -> Iterator[tuple[slice, Tensor]]:
    """Yield the columns and, in double precision, the deviations `(N, C)` from their average in float32."""
    for place in column_blocks(vectors):
        block = vectors[:, place]
        yield place, (block - block.mean(0)).double()


def centred_gram(vectors: Tensor | Rows) -> Tensor:
    """Return the inner products `(N, N)` of the deviations of vectors `(N, P)` from their average."""
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors.device)
    for _, centred in centred_blocks(vectors):
        gram += centred @ centred.T
    return gram


def centred_products(vectors: Vectors, trained: Tensor | Rows) -> Tensor:
    """Return the inner products `(M, N)` of two sets' deviations from the average of `trained` `(N, P)`."""
    return torch.cat([_products(piece, trained) for piece in pieces(vectors)])


def _products(piece: Tensor | Rows, trained: Tensor | Rows) -> Tensor:
    products = torch.zeros(len(piece), len(trained), dtype=torch.float64)
    for place in column_blocks(trained, piece):
        block = trained[:, place]
        average = block.mean(0)
        products += (piece[:, place] - average).double() @ (block - average).double().T
    return products
