"""Stage 3: new vectors, drawn from the engine; of several fits, from each its share."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pdiff.analysis.references import spread
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.runtime.processes import share
from pdiff.runtime.storage import write_json, write_rows, write_tensors

if TYPE_CHECKING:
    from pdiff.run.run import Run

PATH_POINTS = 8


def generate(run: "Run") -> None:
    """Write `samples/`: vectors, the first fit's latents, the way of a few of them, and what they were drawn with."""
    folder, settings = run.directory.folder("generate"), run.config.generate
    engine = run.engine
    seed = run.seed("generate")
    sampler = settings.sampler or engine.config["sampler"]
    description = {
        "num": settings.num,
        "seed": seed,
        "layout": engine.layout.fingerprint(),
        "sampler": dict(sampler),
    }
    repeats = len(run.engines)
    fits = [number for number in range(repeats) for _ in range(settings.num)[share(settings.num, number, repeats)]]
    latents = [
        each.sample_latents(fits.count(number), run.fit_seed(number, "generate"), settings.batch_size, sampler)
        for number, each in enumerate(run.engines)
    ]
    write_tensors(folder / "latents.safetensors", {"latents": latents[0]})
    write_decoded(run.engines, latents, folder / "vectors.safetensors", settings.batch_size)
    if repeats > 1:
        description |= {"fits": fits}
    if settings.path:
        path, steps = engine.sample_path(settings.path, PATH_POINTS, run.seed("generate", "path"), sampler)
        write_decoded([engine], [path], folder / "path.safetensors", settings.path)
        description |= {"path_steps": steps.tolist()}
    write_json(folder / "samples.json", {**description, "spread": spread(run.generated, run.population.tensor())})


def write_decoded(
    engines: Sequence[ParameterDiffusion], latents: Sequence[Tensor], path: Path, batch_size: int
) -> None:
    """Write the vectors `(..., P)` of the latents `(..., L)` of each engine, which need not fit into memory."""
    shape = [sum(map(len, latents)), *latents[0].shape[1:-1], engines[0].layout.size]
    parts = (engine.decoded(rows.flatten(0, -2), batch_size) for engine, rows in zip(engines, latents, strict=True))
    write_rows(path, "vectors", shape, chain.from_iterable(parts))
