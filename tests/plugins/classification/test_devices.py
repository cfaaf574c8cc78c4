"""Classification on a simulated GPU: the bytes of the CPU, few copies, and no wait where there need be none."""

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing.simulated_cuda import simulated_cuda

ENGINE = {"denoiser": {"width": 16, "depth": 1}, "generator_training": {"steps": 10}}
BRIEF = {"steps": 4, "batch_size": 4}
FEW = {
    "engine": ENGINE,
    "fit": {
        "split": {"type": "random", "select": 0.2, "unseen": 0.3},
        "decoder": BRIEF,
        "hypernet": {**BRIEF, "width": 16},
    },
    "evaluate": {
        "conditional": {
            name: {"type": name} for name in ("oracle", "base", "ridge", "hypernet", "generated", "soup")
        } | {"finetuned1": {"type": "finetuned", "steps": 1}}
    },
}  # fmt: skip
LINEAGES = {
    "engine": ENGINE,
    "fit": {"canonical": "permutation+scale"},
    "generate": {"num": 3, "path": 1},
    "evaluate": {"num": 2},
}


def done(values: dict, folder) -> RunDirectory:
    """Return the directory of a finished run on the CPU."""
    directory = RunDirectory(folder)
    run_pipeline(resolve(values), directory, gates=False)
    return directory


@pytest.mark.slow
def test_networks_for_conditions_a_tuned_decoder_and_a_hypernetwork_end_with_the_bytes_of_the_cpu(
    subsets, on_gpu, tmp_path
):
    on_gpu(done(merge(subsets, FEW), tmp_path / "on_cpu"))


@pytest.mark.slow
def test_lineages_in_canonical_form_end_with_the_bytes_of_the_cpu(zoo, on_gpu, tmp_path):
    on_gpu(done(merge(zoo, LINEAGES), tmp_path / "on_cpu"))


def test_evaluation_copies_once_for_each_candidate_and_split(subsets, conditional):
    counts = []
    with simulated_cuda() as gpu:
        case = conditional({**subsets, "device": "cuda"})
        collected = case.candidates()
        candidates = collected.with_vectors(collected.vectors.to("cuda"), slice(None))
        for count in (2, 4):
            some = candidates.take(list(range(count)))
            case.evaluate(some)
            gpu.reset()
            case.evaluate(some)
            counts.append(gpu.copies_to_host)
    assert counts[1] - counts[0] <= 2


def test_no_step_of_a_training_waits(subsets, conditional):
    waits = []
    for steps in (10, 20):
        values = merge(subsets, {"collect": {"networks": {"steps": steps}}})
        with simulated_cuda() as gpu:
            conditional({**values, "device": "cuda"}).collect()
        waits.append(gpu.syncs)
    assert waits[0] == waits[1], gpu.places
