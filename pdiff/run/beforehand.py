"""What is better told before a collection, or before the fit to one that is taken: mistakes in the settings.

They are imported when there is a run, which has seen that OpenCV loads: some need mmengine's hooks, which need it.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pdiff.run.run import Run


def check_engine(run: "Run", collected: bool) -> None:
    """Raise a `PdiffError` for an engine or a way to draw that cannot be, as far as is known without the task.

    Args:
        run: the run.
        collected: whether the engine is to be fitted to the checkpoints that are there.
    """
    engine = run.new_engine()
    if collected:
        conditions = run.collected.conditions
        told = run.config.fit.conditions or ([] if conditions is None else conditions.names)
        engine.prepare(run.collected.layout, torch.device("meta"), len(told))


def check_settings(run: "Run") -> None:
    """Raise a `PdiffError` for settings of any stage that cannot be; all that is not known yet passes."""
    from pdiff.run.fit_through_losses import check_behaving
    from pdiff.run.sources import check_sources
    from pdiff.run.splits import check_conditions
    from pdiff.run.targets import check_targets
    from pdiff.run.units import check_canonical

    run.new_engine().prepare(run.layout, torch.device("meta"), len(run.config.fit.conditions or []))
    check_sources(run)
    conditions = None if run.config.checkpoints.files else run.built.conditions
    check_conditions(run.config, run.layout, conditions)
    check_targets(run, conditions)
    check_behaving(run)
    check_canonical(run)
