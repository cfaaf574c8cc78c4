"""Whether every run of a sweep can begin, looked at before the first one does."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from pdiff.run.directory import RunDirectory
from pdiff.run.fit_through_losses import check_behaving
from pdiff.run.run import Run
from pdiff.run.sources import check_sources
from pdiff.run.splits import check_conditions
from pdiff.run.targets import check_targets
from pdiff.run.units import check_canonical
from pdiff.runtime.errors import PdiffError
from pdiff.sweep.setting import Setting, as_text


def check_settings(settings: Sequence[Setting]) -> None:
    """Refuse settings with which a run would end at once; nothing is trained, and nothing left on disk.

    A task is built once for all that share a collection, and settings that differ in seeds alone are looked at once.

    Raises:
        PdiffError: the line names the setting.
    """
    built: dict[str, Any] = {}
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings:
            config = setting.config
            text = as_text([setting.collection, config | {"seed": 0, "fit": {**config["fit"], "seed": None}}])
            if text in seen:
                continue
            seen.add(text)
            try:
                run = Run(Config(config), RunDirectory(Path(folder) / setting.collection))
                run.built = built.get(setting.collection) or run.built
                built[setting.collection] = run.built
                check_run(run)
            except PdiffError as error:
                raise PdiffError(f"{setting.name}: {error}") from None


def check_run(run: Run) -> None:
    """Raise a `PdiffError` for a run that cannot begin: its engine's parts are made without memory."""
    run.new_engine().prepare(run.layout, torch.device("meta"), len(run.config.fit.conditions or []))
    check_sources(run)
    conditions = None if run.config.checkpoints.files else run.built.conditions
    check_conditions(run.config, run.layout, conditions)
    check_targets(run, conditions)
    check_canonical(run)
    check_behaving(run)
