"""The stages in their order; each reads and writes files of the run directory, and most end with a gate."""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from mmengine.config import Config

from pdiff.gates.candidates import gate_candidates
from pdiff.gates.codec import gate_codec
from pdiff.gates.diffusion import gate_denoiser, gate_latents
from pdiff.gates.population import gate_population
from pdiff.profiling import profiled
from pdiff.run.check import Check
from pdiff.run.directory import STAGES, RunDirectory
from pdiff.run.record import pass_gate, write_gate
from pdiff.run.run import Run
from pdiff.runtime import processes
from pdiff.runtime.cost import measured
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.progress import logger
from pdiff.runtime.storage import write_json
from pdiff.stages.collect import collect
from pdiff.stages.compare import compare
from pdiff.stages.evaluate import evaluate
from pdiff.stages.fit import fit
from pdiff.stages.generate import generate

FUNCTIONS: dict[str, Callable[[Run], None]] = {
    "collect": collect,
    "fit": fit,
    "generate": generate,
    "evaluate": evaluate,
    "compare": compare,
}
TOGETHER = ("collect", "fit", "evaluate")  # stages that several processes share; the others need one alone
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
        profile: show in the report where the time of each stage went; in a run of several processes, that of the first.

    Raises:
        PdiffError: for whatever the user can mend, a failed gate included; nothing that was computed is lost.
    """
    processes.take_gpu(config.device)
    run = Run(config, directory, profile and processes.is_main())
    processes.agree_on(run.device)

    def prepare() -> None:
        held.enter_context(directory.locked())
        directory.prepare(config.to_dict(), stages, resume, overwrite)
        settings = {"seed": config.seed, "command": shlex.join(sys.argv), "processes": processes.size()}
        write_json(directory.path / "environment.json", {**environment(run.device), **settings})
        for stage in STAGES[: STAGES.index(stages[0])]:
            pass_gate(directory, stage, gates)

    with ExitStack() as held:
        processes.on_main(prepare)
        held.enter_context(directory.shared())
        for stage in stages:
            run_stage(run, stage)
            processes.on_main(partial(pass_gate, directory, stage, gates))
        processes.gather(None)  # the first process keeps what the others talk by, so it leaves last


def run_stage(run: Run, stage: str) -> None:
    """Run one stage and its gate, unless it is done; the stages before it must be, with all their files whole."""
    begun = processes.on_main(partial(begin_stage, run, stage))
    if begun is None:
        return
    # What compares writes the report, so it takes its own profile before that.
    with measured() as cost, profiled(None if stage == "compare" else run.profile_file(stage)):
        perform(run, stage)
    processes.on_main(partial(run.directory.finish, stage, {**cost, **begun}))
    logger.info("%s: %.1f s", stage, cost["seconds"])


def begin_stage(run: Run, stage: str) -> dict[str, bool] | None:
    """Return whether an unfinished stage is `resumed`; None for one that is done."""
    if stage in run.directory.records():
        run.directory.require(stage)
        run.directory.remove_passing(stage)  # left by a run that was killed when it had recorded the stage
        logger.info("%s: done before", stage)
        return None
    for earlier in STAGES[: STAGES.index(stage)]:
        run.directory.require(earlier)
    run.directory.remove_torn(stage)
    return {"resumed": run.directory.started(stage)}


def perform(run: Run, stage: str) -> None:
    """Do what a stage does, and write what its gate finds."""
    if stage in TOGETHER:
        FUNCTIONS[stage](run)
    else:
        processes.on_main(lambda: FUNCTIONS[stage](run))
    processes.on_main(lambda: run_gates(run, stage))


def run_gates(run: Run, stage: str) -> None:
    """Write what the gates of a stage, if it has any, find."""
    if GATES[stage]:
        write_gate(run.directory, stage, [check for gate in GATES[stage] for check in gate(run)])
