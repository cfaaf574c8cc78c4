"""What the gates found, on disk: `gate.json` in the folder of each stage that has one."""

from collections.abc import Sequence
from typing import Any

from pdiff.run.check import Check
from pdiff.run.directory import RunDirectory
from pdiff.run.stage import STAGES
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import logger
from pdiff.runtime.storage import read_json, write_json


def write_gate(directory: RunDirectory, stage: str, checks: Sequence[Check]) -> None:
    """Write the checks of a stage into its folder."""
    write_json(directory.folder(stage) / "gate.json", [check.to_json(stage) for check in checks])


def read_gate(directory: RunDirectory, stage: str) -> list[dict[str, Any]]:
    """Return the records of a stage's checks; none where the stage has no gate or is not done."""
    path = directory.folder(stage) / "gate.json"
    return read_json(path) if path.exists() else []


def read_gates(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the records of all checks in the order of the stages: `stage`, `name`, `passed`, `line`, `figures`."""
    return [record for stage in STAGES for record in read_gate(directory, stage)]


def pass_gate(directory: RunDirectory, stage: str, stop: bool) -> None:
    """Say what a stage's gate found; at a failed check stop the run, or go on with a warning.

    Raises:
        PdiffError: a check failed, and `stop` is true.
    """
    failed = []
    in_form = directory.config().get("fit", {}).get("canonical", "none") != "none"
    for record in read_gate(directory, stage):
        if stage == "collect" and record["name"] in ("basin", "runs") and in_form:
            continue  # judged after the canonical form, which may have been asked for after the collection
        words = f"gate {stage}/{record['name']}: {record['line']}"
        if record["passed"]:
            logger.info(words)
            continue
        failed.append(words)
        if not stop:
            logger.warning("%s (ignored)", words)
    if failed and stop:
        more = f" Checks that failed after it: {len(failed) - 1}." if len(failed) > 1 else ""
        raise PdiffError(f"{failed[0]}{more} To go on all the same, give --resume --no-gates.")
