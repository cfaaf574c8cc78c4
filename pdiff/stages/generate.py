"""Stage 3: new vectors, drawn from the engine; of several fits, from each its share."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pdiff.analysis.references import spread
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.run.targets import asked_of, open_targets
from pdiff.run.wanted import open_wanted
from pdiff.runtime.processes import share
from pdiff.runtime.storage import write_json, write_rows, write_tensors

if TYPE_CHECKING:
    from pdiff.run.run import Run

PATH_POINTS = 8


def generate(run: "Run") -> None:
    """Write `samples/`: vectors, the first fit's latents, the way of a few of them, and what they were drawn with."""
    folder, settings = run.directory.folder("generate"), run.config.generate
    engine, drawing = run.engine, run.drawing
    counts, told, wanted = conditional_counts(run) if run.conditional else plain_counts(run)
    fits = [number for number, count in enumerate(counts) for _ in range(count)]
    description = {
        "num": len(fits),
        "seed": run.seed("generate"),
        "layout": engine.layout.fingerprint(),
        "sampler": drawing["sampler"] and dict(drawing["sampler"]),
    }
    latents = [
        each.sample_latents(count, run.fit_seed(number, "generate"), **drawing, **asked)
        for number, (each, count, asked) in enumerate(zip(run.engines, counts, told, strict=True))
    ]
    write_tensors(folder / "latents.safetensors", {"latents": latents[0]})
    write_decoded(run.engines, latents, folder / "vectors.safetensors", settings.batch_size)
    if len(counts) > 1:
        description |= {"fits": fits}
    if run.conditional:
        description |= {"wanted": wanted * len(counts), "guidance": settings.guidance}
    if targets := open_targets(run):
        asked = dict(zip(targets.names, targets.wanted.tolist(), strict=True))
        description |= {"target": asked, "guidance": settings.guidance}
    if run.draws_path:
        way = {key: value for key, value in drawing.items() if key != "batch_size"} | asked_of(run, settings.path)
        path, steps = engine.sample_path(settings.path, PATH_POINTS, run.seed("generate", "path"), **way)
        write_decoded([engine], [path], folder / "path.safetensors", settings.path)
        description |= {"path_steps": steps.tolist()}
    write_json(folder / "samples.json", {**description, "spread": spread(run.generated, run.population.tensor())})


def plain_counts(run: "Run") -> tuple[list[int], list[dict[str, Tensor]], list[int]]:
    """Return how many of `generate.num` vectors each fit draws, and what it is told: the target, if there is one."""
    num, repeats = run.config.generate.num, run.config.fit.repeats
    counts = [len(range(num)[share(num, number, repeats)]) for number in range(repeats)]
    return counts, [asked_of(run, count) for count in counts], []


def conditional_counts(run: "Run") -> tuple[list[int], list[dict[str, Tensor]], list[int]]:
    """Return how many vectors each fit draws, for which conditions, and the numbers of these.

    Of each fit there are `generate.draws` vectors for every wanted condition.
    """
    conditions = open_wanted(run).conditions
    wanted = list(range(len(conditions))) * run.config.generate.draws
    repeats = run.config.fit.repeats
    return [len(wanted)] * repeats, [{"conditions": conditions.values[wanted]}] * repeats, wanted


def write_decoded(
    engines: Sequence[ParameterDiffusion], latents: Sequence[Tensor], path: Path, batch_size: int
) -> None:
    """Write the vectors `(..., P)` of the latents `(..., L)` of each engine, which need not fit into memory."""
    shape = [sum(map(len, latents)), *latents[0].shape[1:-1], engines[0].layout.size]
    parts = (engine.decoded(rows.flatten(0, -2), batch_size) for engine, rows in zip(engines, latents, strict=True))
    write_rows(path, "vectors", shape, chain.from_iterable(parts))
