"""Stage 2: the engine, fitted to the population."""

from pdiff.engine import ParameterDiffusion
from pdiff.run import Run


def fit(run: Run) -> None:
    """Write `engine/`; a fit that was interrupted goes on from its last training state."""
    folder = run.directory.folder("fit")
    population = run.population
    engine = ParameterDiffusion(run.config.engine.to_dict(), seed=run.seed("engine"), device=str(run.device))
    engine.fit(population.vectors, population.layout, folder)
    engine.save(folder)
