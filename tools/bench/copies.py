"""Count what a run makes a GPU wait for: copies to it, copies from it, synchronisations; under the simulated GPU.

    python tools/bench/copies.py

Of tiny runs of the four tasks: what the stage `evaluate` does, over its evaluations, one for each candidate and split;
and what it does beyond that where the batches are smaller, over the passes that this takes more, one for each candidate
and batch. Of the engine's presets: what a step of a training and a step of a sampler does, which is what more steps do
beyond fewer, over the steps. Nothing is timed, and the counts are of this machine's torch and libraries.
"""

import argparse
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.run.stage import STAGES
from pdiff.runtime.errors import command
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.replay import Replay
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout

TINY = Path(__file__).parent / "tiny"
TASKS = tuple(sorted(path.stem for path in TINY.glob("*.yaml")))
LOADERS = [f"task.model.options.{split}_dataloader.batch_size" for split in ("val", "test")]
SMALLER = {  # batches than those of the tiny runs
    "classification": {"task.eval_batch": 100},
    "detection": dict.fromkeys(LOADERS, 2),
    "generation": {"task.eval_batch": 5},
    "segmentation": dict.fromkeys(LOADERS, 1),
}
SHORT, LONG = 6, 16  # steps; mmengine logs every hundredth
CLOSED_FORM = "fast"  # the preset whose codec has no training
FEW = {"batch_size": 4}
PRESETS = yaml.safe_load((Path(__file__).parent / "tiny_engines.yaml").read_text())
TITLES = ("what", "number", "copies to the GPU", "copies from it", "synchronisations")
Counts = tuple[int, int, int]


def counts_of(gpu: Any) -> Counts:
    """Return the copies to a simulated GPU, those from it, and the synchronisations, since it was reset."""
    return gpu.copies_to_device, gpu.copies_to_host, gpu.syncs


def beyond(some: Counts, more: Counts) -> Counts:
    """Return what counts have beyond others."""
    return tuple(b - a for a, b in zip(some, more, strict=True))


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """Hand over a list to which each batch that is replayed inside the block adds its candidates."""
    found, call = [], Replay.__call__

    def counted(replay: Replay, batch: Any) -> Iterator[Any]:
        found.append(len(replay.candidates))
        return call(replay, batch)

    with mock.patch.object(Replay, "__call__", counted):
        yield found


def evaluated(task: str, folder: Path, changes: Mapping[str, Any]) -> tuple[int, int, Counts]:
    """Return how many evaluations a collected run of a task writes, in how many passes, and the counts of the stage."""
    run = Run(load_config(None, str(TINY / f"{task}.yaml"), {"device": "cuda"}, changes), RunDirectory(folder))
    _ = run.task  # what is moved once in a run is no part of a candidate
    shutil.rmtree(run.directory.folder("evaluate"), ignore_errors=True)
    with simulated_cuda() as gpu, counted_passes() as passes:
        gpu.reset()
        STAGES["evaluate"].work()(run)
        found = counts_of(gpu)
    files = run.directory.folder("evaluate").glob("*.jsonl")
    return sum(len(path.read_text().splitlines()) for path in files), sum(passes), found


def task_rows(task: str, folder: Path) -> Iterator[tuple[str, int, Counts]]:
    """Yield the name, how many were counted, and the counts: of the evaluations of a task, and of a batch more."""
    config = load_config(None, str(TINY / f"{task}.yaml"), {"device": "cpu"}, {})
    with redirect_stdout(StringIO()):  # COCO's tools print
        run_pipeline(config, RunDirectory(folder), ["collect", "fit", "generate"], gates=False)
        with simulated_cuda():
            number, passes, counts = evaluated(task, folder, {})
            _, more, most = evaluated(task, folder, SMALLER[task])
    yield f"{task}: a candidate on a split", number, counts
    yield f"{task}: a candidate on one more batch", more - passes, beyond(counts, most)


def fitted(preset: str, codec: int = 1, generator: int = 1) -> ParameterDiffusion:
    """Return an engine of a preset, made tiny, after so many steps of its trainings on the simulated GPU."""
    trainings = {"generator_training": {"steps": generator, **FEW}}
    if preset != CLOSED_FORM:
        trainings["autoencoder_training"] = {"steps": codec, **FEW}
    engine = ParameterDiffusion({"preset": preset, **PRESETS[preset], **trainings}, device="cuda")
    vectors = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    engine.fit(vectors, Layout.of({"weight": torch.empty(8, 7), "bias": torch.empty(8)}))
    return engine


def each(gpu: Any, work: Callable[[int], object]) -> tuple[int, Counts]:
    """Return the steps between the two lengths of a work, and what the longer one counts beyond the shorter."""
    found = []
    for steps in (SHORT, LONG):
        gpu.reset()
        work(steps)
        found.append(counts_of(gpu))
    return LONG - SHORT, beyond(*found)


def engine_rows(preset: str) -> Iterator[tuple[str, int, Counts]]:
    """Yield for each kind of step of a preset its name, how many were counted, and the counts."""
    with simulated_cuda() as gpu:
        if preset != CLOSED_FORM:
            yield f"{preset}: a step of the codec's training", *each(gpu, lambda steps: fitted(preset, codec=steps))
        yield f"{preset}: a step of the denoiser's training", *each(gpu, lambda steps: fitted(preset, generator=steps))
        engine = fitted(preset)
        for name in ("DDIM", "DDPM", "DPM-Solver++"):
            sampler = {"type": name}
            drawn = each(gpu, lambda steps, given=sampler: engine.sample_latents(4, sampler={**given, "steps": steps}))
            yield f"{preset}: a step of {name}", *drawn


def row(name: str, number: int, counts: Counts) -> str:
    """Return a line of the table: each count over the number."""
    return f"| {' | '.join([name, str(number), *(f'{count / number:.2f}' for count in counts)])} |"


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS, help="default: all")
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=[*PRESETS], help="default: all")
    arguments = parser.parse_args(argv)
    logging.getLogger("pdiff").setLevel(logging.ERROR)  # what tiny runs are worth is no matter here
    print(f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|", sep="\n")
    for task in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder:
            for name, number, counts in task_rows(task, Path(folder)):
                print(row(name, number, counts), flush=True)
    for preset in arguments.presets:
        for name, number, counts in engine_rows(preset):
            print(row(name, number, counts), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
