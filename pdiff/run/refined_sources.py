"""The source of candidates of another one that are trained on: optional, in no default table."""

from pdiff.run.refining import TOGETHER, Refinement
from pdiff.run.sources import SOURCES, Drawn, Pool


@SOURCES.register_module(name="refined")
def refined(
    pool: Pool,
    of: str,
    steps: int,
    lr: float = 1e-3,
    space: str = "latent",
    axes: int = 32,
    together: int = TOGETHER,
    weight_decay: float = 0.0,
    num: int | None = None,
) -> Drawn:
    """Return the candidates of another source, each trained on by itself for its own condition: needs the hook `loss`.

    Args:
        of: the name of that source; of single networks.
        steps: of AdamW, its rate falling to 0 by a cosine; 0 for the candidates as they are.
        lr: its rate, in the units of the space.
        space: what is trained: `latent`, their latents, by which the decoder moves them; `weights`; or `subspace`,
            steps along the leading principal axes of the fitted vectors, in standard deviations.
        axes: of the subspace, how many at most.
        together: how many are trained at once; it changes nothing but time and memory.
        weight_decay: of AdamW.
        num: how many, the first ones; default: evaluate.num. All where networks are for conditions.
    """
    found = pool.other(of)
    vectors = found.vectors[:] if pool.wanted else found.vectors[: pool.count(num)]
    conditions = pool.wanted and pool.wanted.conditions.take(found.wanted)
    how = Refinement(of, steps, lr, space, axes, together, weight_decay)
    made, seconds = pool.refine(how, vectors, conditions)
    parents = None if found.parents is None else found.parents[: len(made)]
    return Drawn(made, parents, found.wanted, seconds + found.seconds)
