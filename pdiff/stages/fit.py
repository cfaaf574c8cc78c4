"""Stage 2: the engine, fitted to the population but for what is held out for its gates and the comparison."""

from typing import TYPE_CHECKING

from pdiff.engine.intake import check_vectors
from pdiff.run.heldout import choose_heldout, split_population
from pdiff.runtime import processes
from pdiff.runtime.storage import write_json

if TYPE_CHECKING:
    from pdiff.run.run import Run


def fit(run: "Run") -> None:
    """Write `engine/`; a fit that was interrupted goes on from its last training state, several processes share it."""
    folder = run.directory.folder("fit")
    population = run.population
    check_vectors(population.tensor(), population.layout)
    processes.on_main(lambda: write_json(folder / "heldout.json", choose_heldout(run)))
    engine = run.new_engine()
    engine.fit(split_population(run)[0], population.layout, folder)
    processes.on_main(lambda: engine.save(folder))
