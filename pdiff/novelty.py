"""Are the new parameters new? Similarity of what candidates get wrong, and distance between vectors."""

import torch
from torch import Tensor


def error_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return |wrong_a AND wrong_b| / |wrong_a OR wrong_b| for every pair; 1 where neither is ever wrong.

    Args:
        a: booleans `(A, S)`, True where candidate A is wrong on sample S.
        b: booleans `(B, S)`.

    Returns:
        `(A, B)`, float32.
    """
    a, b = a.float(), b.float()
    both = a @ b.T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def nearest_similarity(similarity: Tensor, leave_self_out: bool) -> Tensor:
    """Return each candidate's largest similarity to a trained one, from a table `(M, N)`."""
    if leave_self_out:
        similarity = similarity.clone().fill_diagonal_(-torch.inf)
    return similarity.max(1).values


def nearest_distance(vectors: Tensor, trained: Tensor, leave_self_out: bool) -> Tensor:
    """Return each vector's Euclidean distance to the nearest trained vector.

    Args:
        vectors: `(M, P)`.
        trained: `(N, P)`.
        leave_self_out: the vectors are the trained ones; each leaves itself out.

    Returns:
        `(M,)`. Differences are formed before squaring: the usual expansion into products loses small distances.
    """
    distance = torch.cdist(vectors, trained, compute_mode="donot_use_mm_for_euclid_dist")
    if leave_self_out:
        distance.fill_diagonal_(torch.inf)
    return distance.min(1).values


def spread(vectors: Tensor, trained: Tensor) -> float:
    """Return the mean standard deviation per coordinate, over that of the trained vectors.

    1 means as wide as the trained ones, 0 a single point. Trained vectors that never differ give 1 when these
    do not differ either, else infinity.
    """
    if len(vectors) < 2:
        return 0.0
    own, reference = vectors.std(0).mean().item(), trained.std(0).mean().item()
    if reference == 0:
        return 1.0 if own == 0 else float("inf")
    return own / reference
