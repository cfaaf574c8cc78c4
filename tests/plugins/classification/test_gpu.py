"""What crosses between host and GPU in training and evaluation, on a simulated GPU, and that it changes nothing."""

import pytest
import torch
from pdiff_plugins.classification import together
from pdiff_plugins.classification import zoo as zoos
from pdiff_plugins.images import collection
from pdiff_plugins.images.data import Split

from pdiff.testing.simulated_cuda import simulated_cuda

STEPS = (  # from the images to the optimiser
    (collection, "images_of"),
    (collection, "training_step"),
    (together, "batch_of"),
    (together, "stacked_step"),
    (zoos, "stacked_step"),
    (Split, "pixels"),
)
BRANCHES = {
    "plugin": "classification",
    "device": "cpu",
    "select": "head",
    "task": {
        "network": {"type": "mlp", "hidden": [8]},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "eval_batch": 100,
    },
    "collect": {
        "train": {"epochs": 2, "batch_size": 32, "augment": [{"type": "shift", "share": 0.1}]},
        "finetune": {"steps": 6, "batch_size": 32, "every": 3},
        "branches": 2,
    },
}


@pytest.fixture(params=["branches", "zoo", "zoo at once", "watched", "sets", "angles", "prompts"])
def values(request, zoo, subsets) -> dict:
    """The values of a config of each way to train and to evaluate, its batches small."""
    values = {"branches": BRANCHES, "sets": subsets, "angles": subsets, "prompts": subsets}.get(request.param, zoo)
    task = {**values["task"], "eval_batch": 100}
    if request.param == "zoo at once":
        task["eval_networks"] = 4
    if request.param == "angles":
        task["conditions"] = {"type": "rotation", "angles": [0, 180, 6]}
    if request.param == "prompts":
        task["conditions"] = {"type": "rotation_prompt", "angles": [0, 180, 6], "images": 8, "scores": 3}
    if request.param == "watched":
        task["data"] = {**task["data"], "classes": list(range(8))}
        task["uncertainty"] = {"outside": {"type": "digits", "size": 8, "classes": [8, 9], "train": 4, "select": 100}}
    return {**values, "task": task}


def vectors_of(values: dict, device: str, conditional):
    """Return a task on a device, its candidates as the core hands them over, and ensembles of them."""
    case = conditional({**values, "device": device})
    candidates = case.candidates()
    candidates.vectors = candidates.vectors.to(device)
    rows = [0] * 3 if candidates.conditions is not None else [0, 1, 2]
    return case, candidates, [candidates.with_vectors(candidates.vectors[:3], rows)] * 2


def facts_of(results) -> list:
    """Return what evaluations say, as plain values."""
    return [(r.metric, r.signature.tolist(), r.scores.tolist(), dict(r.details), r.condition) for r in results]


def test_a_gpu_finds_what_a_cpu_finds(values, conditional):
    case, candidates, ensembles = vectors_of(values, "cpu", conditional)
    expected = facts_of(case.evaluate(candidates, ensembles=ensembles))
    with simulated_cuda():
        case, on_gpu, ensembles = vectors_of(values, "cuda", conditional)
        assert torch.equal(on_gpu.vectors.cpu(), candidates.vectors)
        assert facts_of(case.evaluate(on_gpu, ensembles=ensembles)) == expected


def test_answers_come_to_the_host_at_the_end_and_no_image_goes_to_the_gpu_again(values, conditional):
    with simulated_cuda() as gpu:
        case, candidates, ensembles = vectors_of(values, "cuda", conditional)
        gpu.reset()
        case.evaluate(candidates, ensembles=ensembles)
        assert gpu.copies_to_host <= 5  # answers, whether they are finite, and three figures of how sure they are
        assert gpu.syncs <= 6  # these, and the conditions on their way to the GPU


def test_no_step_of_a_training_is_waited_for(values, conditional, monkeypatch):
    steps = []

    def watch(module, name):
        step = getattr(module, name)

        def watched(*args):
            steps.append(name)
            with gpu.no_sync(name):
                return step(*args)

        monkeypatch.setattr(module, name, watched)

    with simulated_cuda() as gpu:
        for module, name in STEPS:
            watch(module, name)
        conditional({**values, "device": "cuda"}).collect()
    assert len(steps) > 10
