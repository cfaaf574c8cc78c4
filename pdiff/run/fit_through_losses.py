"""What of a fit is trained through the losses of networks, `fit.decoder` and `fit.hypernet`, and whether it can be."""

from typing import TYPE_CHECKING

from pdiff.engine.behaving_settings import DEFAULTS
from pdiff.engine.settings import check_training
from pdiff.run.behaviour import Behaviour, check_has_loss
from pdiff.run.finetuning import check_collected
from pdiff.runtime.errors import PdiffError
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run


def check_behaving(run: "Run") -> None:
    """Raise a `PdiffError` for a training through losses that cannot be: a setting, or a plugin without the hook."""
    for key in DEFAULTS:
        settings = run.config.fit[key]
        if settings is not None:
            check_has_loss(run, f"fit.{key}")
            check_training(f"fit.{key}", run.device, settings)
    if (run.config.fit.hypernet or {}).get("begin") == "base":
        check_collected(run, "fit.hypernet.begin")
    check_hypernet(run, not run.targeted)  # figures of checkpoints are none of the conditions that they are trained for


def check_hypernet(run: "Run", conditional: bool) -> None:
    """Raise a `PdiffError` for a hypernetwork where the checkpoints have no conditions of their own."""
    if run.config.fit.hypernet is not None and not conditional:
        line = "fit.hypernet: got settings, but the checkpoints have no conditions that it could begin with"
        raise PdiffError(f"{line}. Set it to null, or give conditions.")


def behaviour_of(run: "Run", rows: Rows) -> Behaviour:
    """Return how networks behave that are made for what rows of the population are for, by their numbers there."""
    conditions = run.population.conditions
    return Behaviour(run, None if conditions is None else conditions.take(rows.rows))
