"""Stage 2: the engine, fitted to the population but for what is held out for its gates and the comparison.

Where the config asks for it, all networks are brought into a canonical form before (`pdiff.stages.canonical`).
`fit.decoder` and `fit.hypernet` are trained after an engine, through the losses of the networks that they give.
`fit.repeats` engines are fitted to the same vectors from different seeds: how much of what is found is the seed's?
"""

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from pdiff.engine.hypernet import Hypernet
from pdiff.engine.intake import check_vectors
from pdiff.run.finetuning import beginning
from pdiff.run.fit_through_losses import behaviour_of, check_behaving, check_hypernet
from pdiff.run.heldout import choose_heldout, fitted_rows, split_population
from pdiff.run.spaces import learnt_places
from pdiff.run.splits import choose_conditions
from pdiff.run.targets import known_conditions
from pdiff.run.thinning import thin
from pdiff.runtime import processes
from pdiff.runtime.storage import write_json
from pdiff.stages.canonical import write_canonical
from pdiff.stages.targets import write_targets
from pdiff.weights.provenance import kin_labels
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run


def fit(run: "Run") -> None:
    """Write `engine/`; a fit that was interrupted goes on from its last training state, several processes share it."""
    population = run.collected
    check_vectors(population.tensor(), population.layout)
    check_behaving(run)
    check_hypernet(run, run.conditional)
    path = run.directory.folder("fit") / "heldout.json"
    choose = choose_conditions if run.conditional else choose_heldout
    processes.on_main(lambda: write_json(path, thin(choose(run), len(population), run.config.fit.num)))
    if run.config.fit.canonical != "none":
        write_canonical(run, fitted_rows(run))
    write_targets(run)
    for number in range(run.config.fit.repeats):
        fit_engine(run, number)
    if run.config.fit.hypernet is not None:
        fit_hypernet(run)


def fit_engine(run: "Run", number: int) -> None:
    """Write the engine of one fit, unless an interrupted run has finished it."""
    folder = run.engine_folder(number)
    if processes.on_main((folder / "engine.json").exists):  # which is written last
        return
    engine = run.new_engine(number)
    fitted, conditions = split_population(run)[0], known_conditions(run)
    known = {} if conditions is None else {"conditions": conditions.take(fitted.rows).values}
    engine.fit(fitted, run.population.layout, folder, **known, groups=groups_of(run, fitted))
    if run.config.fit.decoder is not None:
        engine.tune_decoder(fitted, behaviour_of(run, fitted), run.config.fit.decoder, folder)
    processes.on_main(lambda: engine.save(folder))


def fit_hypernet(run: "Run") -> None:
    """Write the hypernetwork beside the first engine, whose decoder it begins with, unless that is done."""
    folder = run.hypernet_folder
    if processes.on_main((folder / "hypernet.json").exists):  # which is written last
        return
    fitted = split_population(run)[0]
    behaviour, seed = behaviour_of(run, fitted), run.fit_seed(0, "hypernet")
    net = Hypernet(run.config.fit.hypernet, seed)
    given = {"vectors": fitted}
    if run.config.fit.hypernet["begin"] == "base":
        given |= {"start": beginning(run), "learnt": learnt_places(run)}
    net.fit(run.engine, behaviour.conditions.values, behaviour, run.engine_folder(0), **given)
    processes.on_main(lambda: net.save(folder))


def groups_of(run: "Run", fitted: Rows) -> NDArray:
    """Return which of the fitted vectors belong together `(F,)`, so that none is watched beside one that is like it.

    Those for one condition do; without conditions those of one initialisation, or of one branch where all share it.
    """
    conditions, provenance = run.population.conditions, [run.population.provenance[row] for row in fitted.rows.tolist()]
    if conditions is not None:
        return conditions.take(fitted.rows).values.unique(dim=0, return_inverse=True)[1].numpy()
    return kin_labels(provenance)
