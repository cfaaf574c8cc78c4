from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export
from pdiff.run.recalibration import Recalibration, recalibrated
from pdiff.run.results import read_metrics
from pdiff.run.run import Run
from pdiff.run.sources import check_sources, open_pool, open_source
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing.simulated_cuda import simulated_cuda

PLUGIN = Path(__file__).with_name("normed.py")
CONFIG = {
    "plugin": str(PLUGIN),
    "select": "all+buffers",
    "device": "cpu",
    "engine": {"autoencoder": {"latent": 4}, "denoiser": {"width": 16}, "generator_training": {"steps": 20}},
    "generate": {"num": 4, "path": 0},
    "evaluate": {
        "num": 3, "train": [], "recalibrate": 2, "sources": {"soup16": None, "ensemble": None, "swag": {"rank": 3}}
    },
}  # fmt: skip


def opened(directory: RunDirectory, **evaluate) -> Run:
    return Run(resolve(merge(CONFIG, {"evaluate": evaluate})), directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunDirectory:
    """A run whose candidates were recalibrated; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("normed") / "run")
    run_pipeline(resolve(CONFIG), directory, gates=False)
    return directory


def by_hand(run: Run, vector: torch.Tensor, batches: int = 2) -> dict[str, torch.Tensor]:
    """Return the statistics of the first layer's outputs on the first batches of the training data."""
    tensors = run.population.layout.unflatten(vector)
    parts = run.task.splits["train"].split(16)[:batches]
    outputs = [torch.nn.functional.linear(x, tensors["0.weight"], tensors["0.bias"]) for x in parts]
    means, variances = ([getattr(y, kind)(0) for y in outputs] for kind in ("mean", "var"))
    return {"1.running_mean": torch.stack(means).mean(0), "1.running_var": torch.stack(variances).mean(0)}


@pytest.mark.parametrize("source", ["generated", "codec", "soup", "interpolation", "gaussian", "noise05"])
def test_statistics_of_candidates_are_the_mean_over_batches_of_training_data_and_nothing_else_is_touched(
    finished, source
):
    run, plain = opened(finished), opened(finished, recalibrate=0)
    own, before = (open_source(each, source, open_pool(each)).vectors[:] for each in (run, plain))
    assert own.shape == before.shape
    for new, old in zip(own, before, strict=True):
        tensors, originals = (run.population.layout.unflatten(vector) for vector in (new, old))
        for name, expected in by_hand(run, old).items():
            torch.testing.assert_close(tensors.pop(name), expected)
        assert all(torch.equal(tensor, originals[name]) for name, tensor in tensors.items())


def test_the_trained_keep_their_own(finished):
    run = opened(finished)
    assert torch.equal(open_source(run, "trained", open_pool(run)).vectors[:], run.population.tensor()[:])
    groups = torch.zeros(1, 3, run.population.layout.size)
    assert recalibrated(run, "ensemble", groups) is groups
    assert recalibrated(run, "ensemble_of", groups) is groups, "its members are as they are in their source"


def test_each_member_of_a_group_is_measured_for_itself(finished):
    run = opened(finished)
    groups = run.population.tensor()[:6].clone().view(2, 3, -1)
    found = recalibrated(run, "generated_ensemble", groups)[:]
    alone = torch.stack([Recalibration(run)(vector) for vector in groups.view(6, -1)])
    assert torch.equal(found.view(6, -1)[:, Recalibration(run).places], alone)


def test_the_evaluation_is_that_of_the_recalibrated(finished, tmp_path):
    run = opened(finished)
    vectors = open_source(run, "generated", open_pool(run)).vectors[:]
    (result, *_) = run.hook.evaluate(task=run.task, candidates=run.candidates(vectors), split="test", ensembles=())
    assert read_metrics(run, "generated")["test"][0] == pytest.approx(result.metric)
    export(finished.path, "generated", "0", tmp_path / "network.safetensors")
    for name, expected in by_hand(run, run.generated[0]).items():
        torch.testing.assert_close(load_file(tmp_path / "network.safetensors")[name], expected)


def test_the_network_of_the_task_is_left_as_it_is(finished):
    run = opened(finished)
    before = {name: tensor.clone() for name, tensor in run.task.model.state_dict().items()}
    open_source(run, "generated", open_pool(run)).vectors[:]
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.task.model.state_dict().items())
    assert run.task.model[1].momentum == 0.1


def test_a_candidate_whose_activations_are_not_finite_keeps_its_own(finished, caplog):
    run = opened(finished)
    vector = torch.full((run.population.layout.size,), 1e38)
    recalibrate = Recalibration(run)
    assert torch.equal(recalibrate(vector), vector[recalibrate.places])
    assert "a candidate's activations are not finite; it keeps its own statistics" in caplog.text


def test_more_batches_than_there_are_is_one_line(finished):
    with pytest.raises(PdiffError, match=r"^evaluate.recalibrate: got 9, expected at most 4, the batches of .* Lower"):
        Recalibration(opened(finished, recalibrate=9))


def test_a_batch_of_a_single_sample_is_one_line(finished):
    recalibrate = Recalibration(opened(finished))
    recalibrate.batches[1] = (recalibrate.batches[1][0][:1],)
    with pytest.raises(PdiffError, match=r"^evaluate.recalibrate: batch 2 of the hook `inputs` has no .* Set 1, or"):
        recalibrate(recalibrate.layout.flatten(recalibrate.model.state_dict()))


def test_what_is_lacking_is_said_before_the_collection(tmp_path):
    without = tmp_path / "normed.py"
    without.write_text(PLUGIN.read_text().partition("@hookimpl\ndef inputs")[0])
    lacking = {
        "but no running statistics are selected that torch measures": {"select": "regex(4\\..*)"},
        "but plugin normed has no hook `inputs`, which yields batches of the training data": {"plugin": str(without)},
    }
    for words, values in lacking.items():
        run = Run(resolve(merge(CONFIG, values)), RunDirectory(tmp_path / "run"))
        with pytest.raises(PdiffError, match=f"^evaluate.recalibrate: got 2, {words}.*, or set 0.$"):
            check_sources(run)


def test_a_number_below_zero_is_one_line():
    with pytest.raises(PdiffError, match="evaluate.recalibrate: got -1"):
        resolve(merge(CONFIG, {"evaluate": {"recalibrate": -1}}))


def test_on_a_gpu_they_are_the_bytes_of_the_cpu(finished, on_gpu, tmp_path):
    directory, _ = on_gpu(finished)
    with simulated_cuda():
        export(directory.path, "generated", "best", tmp_path / "there.safetensors")
    export(finished.path, "generated", "best", tmp_path / "here.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()
