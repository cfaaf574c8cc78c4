"""Stage 2: the engine, fitted to the population but for a few checkpoints that its gate looks at."""

from torch import Tensor

from pdiff import ranks
from pdiff.engine import check_vectors
from pdiff.registry import call
from pdiff.run import Run
from pdiff.storage import read_json, write_json
from pdiff.weights.vectors import Rows

MOST_HELDOUT = 10  # at most one checkpoint in so many


def fit(run: Run) -> None:
    """Write `engine/`; a fit that was interrupted goes on from its last training state, several processes share it."""
    folder = run.directory.folder("fit")
    population = run.population
    check_vectors(population.tensor(), population.layout)
    rows = call(choose_heldout, run.config.fit, "fit", size=len(population))
    ranks.on_main(lambda: write_json(folder / "heldout.json", {"rows": rows}))
    engine = run.new_engine()
    engine.fit(without(population.tensor(), rows), population.layout, folder)
    ranks.on_main(lambda: engine.save(folder))


def choose_heldout(size: int, heldout: int) -> list[int]:
    """Return `heldout` rows of a population of `size`, evenly spaced, but no more than a tenth of them."""
    count = min(heldout, size // MOST_HELDOUT)
    return [int((place + 0.5) * size / count) for place in range(count)]


def without(vectors: Tensor, rows: list[int]) -> Rows:
    """Return all other rows."""
    dropped = set(rows)
    return Rows(vectors, [row for row in range(len(vectors)) if row not in dropped])


def split_population(run: Run) -> tuple[Rows, Rows]:
    """Return the vectors that the engine was fitted to `(N - H, P)`, and the held-out ones `(H, P)`."""
    rows = read_json(run.directory.folder("fit") / "heldout.json")["rows"]
    vectors = run.population.tensor()
    return without(vectors, rows), Rows(vectors, rows)
