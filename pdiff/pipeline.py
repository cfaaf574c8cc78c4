"""The stages in their order; each reads and writes files of the run directory, and most end with a gate."""

import shlex
import sys
from collections.abc import Callable, Sequence

from mmengine.config import Config

from pdiff.errors import PdiffError, known
from pdiff.gates.candidates import gate_candidates
from pdiff.gates.check import Check
from pdiff.gates.codec import gate_codec
from pdiff.gates.diffusion import gate_denoiser, gate_latents
from pdiff.gates.population import gate_population
from pdiff.gates.record import pass_gate, write_gate
from pdiff.measure import environment, measured
from pdiff.profiling import profiled
from pdiff.progress import logger
from pdiff.run import Run
from pdiff.rundir import STAGES, RunDirectory
from pdiff.stages.collect import collect
from pdiff.stages.compare import compare
from pdiff.stages.evaluate import evaluate
from pdiff.stages.fit import fit
from pdiff.stages.generate import generate
from pdiff.storage import write_json

FUNCTIONS: dict[str, Callable[[Run], None]] = {
    "collect": collect,
    "fit": fit,
    "generate": generate,
    "evaluate": evaluate,
    "compare": compare,
}
GATES: dict[str, Sequence[Callable[[Run], list[Check]]]] = {
    "collect": (gate_population,),
    "fit": (gate_codec, gate_denoiser),
    "generate": (gate_latents,),
    "evaluate": (gate_candidates,),
    "compare": (),
}


def stages_of(name: str) -> Sequence[str]:
    """Return the stages that `--stage` names: one, or all."""
    if name == "all":
        return STAGES
    if name not in STAGES:
        raise PdiffError(f"--stage: got {name!r}. {known(name, [*STAGES, 'all'])}")
    return (name,)


def run_pipeline(
    config: Config,
    directory: RunDirectory,
    stages: Sequence[str] = STAGES,
    resume: bool = False,
    overwrite: bool = False,
    gates: bool = True,
    profile: bool = False,
) -> None:
    """Run stages of a config in a directory.

    Args:
        config: the resolved config.
        directory: the run directory.
        stages: names, in order.
        resume: keep what is done, and go on where an earlier run stopped.
        overwrite: repeat the stages, and accept a directory of another config.
        gates: stop at a stage whose gate has a failed check; False goes on with a warning.
        profile: show in the report where the time of each stage went.

    Raises:
        PdiffError: for whatever the user can mend, a failed gate included; nothing that was computed is lost.
    """
    run = Run(config, directory, profile)
    with directory.locked():
        directory.prepare(config.to_dict(), stages, resume, overwrite)
        settings = {"seed": config.seed, "command": shlex.join(sys.argv)}
        write_json(directory.path / "environment.json", {**environment(run.device), **settings})
        for stage in STAGES[: STAGES.index(stages[0])]:
            pass_gate(directory, stage, gates)
        for stage in stages:
            run_stage(run, stage)
            pass_gate(directory, stage, gates)


def run_stage(run: Run, stage: str) -> None:
    """Run one stage and its gate, unless it is done; the stages before it must be, with all their files whole."""
    if stage in run.directory.records():
        run.directory.require(stage)
        logger.info("%s: done before", stage)
        return
    for earlier in STAGES[: STAGES.index(stage)]:
        run.directory.require(earlier)
    resumed = run.directory.started(stage)
    # What compares writes the report, so it takes its own profile before that.
    with measured() as cost, profiled(None if stage == "compare" else run.profile_file(stage)):
        perform(run, stage)
    run.directory.finish(stage, {**cost, "resumed": resumed})
    logger.info("%s: %.1f s", stage, cost["seconds"])


def perform(run: Run, stage: str) -> None:
    """Do what a stage does, and write what its gate finds."""
    FUNCTIONS[stage](run)
    if GATES[stage]:
        write_gate(run.directory, stage, [check for gate in GATES[stage] for check in gate(run)])
