"""The stages in their order, a row each: all that the rest of pdiff has to know to run one more."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One stage; it reads and writes files of the run directory, and nothing else passes between two of them.

    Attributes:
        name: as `--stage` takes it.
        folder: of the run directory, which it writes.
        sections: of the config, on which it depends, and on every stage before it.
        function: `module:name` of what does it, which takes the run.
        advice: what takes less memory, as a sentence.
        gates: `module:name` of the checks behind it, each of which takes the run and returns `Check`s.
        shared: several processes do it together; else the first does it alone.
        within: a folder inside that of an earlier stage, which it writes too.
        exact: whether a GPU computes it, its gates included, by what it can repeat.
    """

    name: str
    folder: str
    sections: tuple[str, ...]
    function: str
    advice: str = "Take a smaller network (task), or select fewer parameters (select)."
    gates: tuple[str, ...] = ()
    shared: bool = False
    within: str | None = None
    exact: bool = False

    def work(self) -> Callable[[Any], None]:
        """Return what does the stage, imported only now."""
        return resolve_name(self.function)

    def checks(self) -> list[Callable[[Any], list]]:
        """Return the gates behind it, imported only now."""
        return [resolve_name(gate) for gate in self.gates]


TABLE = (
    Stage(
        "collect",
        folder="population",
        sections=("plugin", "seed", "select", "task", "collect", "checkpoints"),
        function="pdiff.stages.collect:collect",
        advice="Take a smaller network (task).",
        gates=("pdiff.gates.population:gate_population",),
        shared=True,
        exact=True,
    ),
    Stage(
        "fit",
        folder="engine",
        sections=("engine", "fit"),
        function="pdiff.stages.fit:fit",
        advice=(
            "Select fewer parameters (select), collect fewer checkpoints (collect), or lower the batch sizes of engine."
        ),
        gates=(
            "pdiff.gates.canonical:gate_canonical",
            "pdiff.gates.codec:gate_codec",
            "pdiff.gates.diffusion:gate_denoiser",
            "pdiff.gates.collapse:gate_collapse",
            "pdiff.gates.schedule:gate_schedule",
        ),
        shared=True,
        within="population/canonical",
    ),
    Stage(
        "generate",
        folder="samples",
        sections=("generate",),
        function="pdiff.stages.generate:generate",
        advice="Lower generate.batch_size, or generate.num.",
        gates=("pdiff.gates.diffusion:gate_latents",),
    ),
    Stage(
        "evaluate",
        folder="evaluation",
        sections=("evaluate",),
        function="pdiff.stages.evaluate:evaluate",
        gates=("pdiff.gates.candidates:gate_candidates",),
        shared=True,
        exact=True,
    ),
    Stage(
        "compare",
        folder="report",
        sections=("compare",),
        function="pdiff.stages.compare:compare",
        advice="Lower generate.num and num in evaluate.sources, or select fewer parameters (select).",
    ),
)
STAGES = {stage.name: stage for stage in TABLE}
