"""Stage 2: the engine, fitted to the population but for a few checkpoints that its gate looks at."""

from typing import TYPE_CHECKING

from pdiff.engine.intake import check_vectors
from pdiff.run.heldout import without
from pdiff.runtime import processes
from pdiff.runtime.registry import call
from pdiff.runtime.storage import write_json

if TYPE_CHECKING:
    from pdiff.run.run import Run

MOST_HELDOUT = 10  # at most one checkpoint in so many


def fit(run: "Run") -> None:
    """Write `engine/`; a fit that was interrupted goes on from its last training state, several processes share it."""
    folder = run.directory.folder("fit")
    population = run.population
    check_vectors(population.tensor(), population.layout)
    rows = call(choose_heldout, run.config.fit, "fit", size=len(population))
    processes.on_main(lambda: write_json(folder / "heldout.json", {"rows": rows}))
    engine = run.new_engine()
    engine.fit(without(population.tensor(), rows), population.layout, folder)
    processes.on_main(lambda: engine.save(folder))


def choose_heldout(size: int, heldout: int) -> list[int]:
    """Return `heldout` rows of a population of `size`, evenly spaced, but no more than a tenth of them."""
    count = min(heldout, size // MOST_HELDOUT)
    return [int((place + 0.5) * size / count) for place in range(count)]
