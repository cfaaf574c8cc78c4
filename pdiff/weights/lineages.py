"""Which vectors are of one initialisation, found by their distances where nobody says it.

Weights of two axes or more begin at random, so that independent networks stay about orthogonal to each other in them,
while what shares an initialisation does not. On digits, MLPs and convolutional networks of eight seeds with eleven
snapshots each lay at 0.89 to 0.98 of the distance of orthogonal ones, snapshots of one training at 0.56 or less from
the nearest other one, fine-tunings of one network at 0.2 or less, trainings from one initialisation at 0.32.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.weights.gram import MOST, squared_distances
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import column_blocks

APART, TOGETHER = 0.8, 0.6  # of the distance of orthogonal vectors: at least between lineages, at most within one
FEWEST, VALUES = 64, 2**16  # values of a vector that are looked at: at least, at most


def find_lineages(vectors: Tensor, layout: Layout) -> NDArray[np.int_] | None:
    """Return the number of each vector's lineage `(N,)`, by first appearance; None where their distances do not tell.

    Args:
        vectors: `(N, P)`; of more than `MOST` nothing is said.
        layout: of a vector.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    columns = weights_of(layout)
    if not 2 < len(vectors) <= MOST or len(columns) < FEWEST:
        return None
    tree = linkage(squareform(distances(vectors, columns), checks=False), "single")
    heights = tree[:, 2]
    if not (heights >= APART).any() or ((heights > TOGETHER) & (heights < APART)).any():
        return None
    clusters = fcluster(tree, APART, "distance")
    sizes = np.bincount(clusters)[1:]
    if sizes.min() == 1 and 2 * sizes.max() > len(vectors):
        return None  # the begin of a training lies as far from all that follows
    return np.unique(clusters, return_index=True)[1].argsort().argsort()[clusters - 1]


def weights_of(layout: Layout) -> Tensor:
    """Return the columns of weights of two axes or more, of many some that are evenly spaced."""
    own = [torch.arange(entry.offset, entry.offset + entry.size) for entry in layout if len(entry.shape) > 1]
    columns = torch.cat([torch.empty(0, dtype=torch.long), *own])
    return columns[torch.linspace(0, len(columns) - 1, min(len(columns), VALUES)).long()]


def distances(vectors: Tensor, columns: Tensor) -> NDArray[np.float64]:
    """Return the distances `(N, N)` in some columns, 1 between orthogonal vectors."""
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for place in column_blocks(vectors):
        block = vectors[:, columns[(columns >= place.start) & (columns < place.stop)]].double()
        gram += block @ block.T
    squares = gram.diagonal()
    total = squares[:, None] + squares
    found = (squared_distances(gram).clamp(min=0) / total.clamp(min=torch.finfo(total.dtype).tiny)).sqrt().numpy()
    np.fill_diagonal(found, 0)
    return found
