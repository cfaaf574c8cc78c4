"""Runs of generators on a simulated GPU end with the bytes of the CPU."""

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.stages.pipeline import run_pipeline

BRIEF = {"steps": 3, "batch_size": 4}
REFINED = {"type": "refined", "of": "nearest", "steps": 2, "lr": 0.001}
LEFT_OUT = ("nearest10", "interpolation2", "ridge2", "kernel_ridge", "regression", "oracle_codec", "soup")


def test_a_run_ends_with_the_bytes_of_the_cpu(finished_generator, on_gpu):
    on_gpu(finished_generator)


@pytest.mark.slow
def test_a_run_over_sets_of_classes_ends_with_the_bytes_of_the_cpu(tiny_generator, on_gpu, tmp_path):
    networks = {"steps": 2, "batch_size": 6, "lr": 1e-2}
    values = {
        **tiny_generator,
        "select": "norms",
        "collect": {
            "conditions": {"type": "classes", "subsets": 7, "size": [3, 5]},
            "train": {"epochs": 1, "batch_size": 48},
            "networks": networks,
            "together": 3,
        },
        "fit": {
            "split": {"type": "random", "select": 0.2, "unseen": 0.3},
            "decoder": BRIEF,
            "hypernet": {**BRIEF, "width": 16},
        },
        "generate": {},
        "evaluate": {
            "conditional": {
                **dict.fromkeys(LEFT_OUT),
                "base": {"type": "base"},
                "finetuned1": {"type": "finetuned", "steps": 1},
                "hypernet": {"type": "hypernet"},
                **{space: {**REFINED, "space": space} for space in ("latent", "weights", "subspace")},
            }
        },
    }
    directory = RunDirectory(tmp_path / "on_cpu")
    run_pipeline(resolve(values), directory, gates=False)
    on_gpu(directory)
