"""Stage 3: new vectors, drawn from the engine."""

from pdiff.engine import ParameterDiffusion
from pdiff.novelty import spread
from pdiff.run import Run
from pdiff.storage import write_json, write_tensors


def generate(run: Run) -> None:
    """Write `samples/`: the vectors and what they were drawn with."""
    folder, settings = run.directory.folder("generate"), run.config.generate
    engine = ParameterDiffusion.load(run.directory.folder("fit"), str(run.device))
    seed = run.seed("generate")
    sampler = settings.sampler or engine.config["sampler"]
    latents = engine.sample_latents(settings.num, seed, settings.batch_size, sampler)
    vectors = engine.decode(latents, settings.batch_size)
    write_tensors(folder / "latents.safetensors", {"latents": latents})
    write_tensors(folder / "vectors.safetensors", {"vectors": vectors})
    description = {
        "num": settings.num,
        "seed": seed,
        "layout": engine.layout.fingerprint(),
        "sampler": dict(sampler),
        "spread": spread(vectors, run.population.tensor()),
    }
    write_json(folder / "samples.json", description)
