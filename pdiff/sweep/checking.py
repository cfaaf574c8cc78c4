"""Whether every run of a sweep can begin, looked at before the first one does."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pdiff.run import beforehand
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
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
                beforehand.check_settings(run)
            except PdiffError as error:
                raise PdiffError(f"{setting.name}: {error}") from None

