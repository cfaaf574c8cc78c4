"""Stage 3: new vectors, drawn from the engine."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pdiff.analysis.references import spread
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.runtime.storage import write_json, write_rows, write_tensors

if TYPE_CHECKING:
    from pdiff.run.run import Run

PATH_POINTS = 8


def generate(run: "Run") -> None:
    """Write `samples/`: vectors, their latents, the way of a few of them, and what they were drawn with."""
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
    latents = engine.sample_latents(settings.num, seed, settings.batch_size, sampler)
    write_tensors(folder / "latents.safetensors", {"latents": latents})
    write_decoded(engine, latents, folder / "vectors.safetensors", settings.batch_size)
    if settings.path:
        path, steps = engine.sample_path(settings.path, PATH_POINTS, run.seed("generate", "path"), sampler)
        write_decoded(engine, path, folder / "path.safetensors", settings.path)
        description |= {"path_steps": steps.tolist()}
    write_json(folder / "samples.json", {**description, "spread": spread(run.generated, run.population.tensor())})


def write_decoded(engine: ParameterDiffusion, latents: Tensor, path: Path, batch_size: int) -> None:
    """Write the vectors `(..., P)` of latents `(..., L)`, which need not fit into memory."""
    parts = engine.decoded(latents.flatten(0, -2), batch_size)
    write_rows(path, "vectors", [*latents.shape[:-1], engine.layout.size], parts)
