"""How often the host waits for a GPU, counted under the simulation of one."""

import pytest
import torch

from pdiff.run.config import resolve
from pdiff.testing.simulated_cuda import simulated_cuda

pytest.importorskip("mmengine")

PARTS = ("plugins/detection", "plugins/segmentation", "plugins/openmmlab", "pdiff/runtime/delivery")


def own(gpu) -> dict[str, int]:
    """Return where the plugins' own code waited and how often; operators do what mmcv asks of them."""
    found = {place: count for place, count in gpu.places.items() if any(part in place for part in PARTS)}
    return {place: count for place, count in found.items() if "/operators/" not in place}


@pytest.fixture
def measured(case):
    """Return a function from a device to evaluations of four candidates, the second time that they are made there."""

    def evaluate(device: str, gpu=None):
        task = case.build({**case.values(), "device": device})
        candidates = case.candidates(task=task)
        candidates.vectors = candidates.vectors.to(device)
        case.evaluate(candidates, task=task)
        if gpu is not None:
            gpu.reset()
        return case.evaluate(candidates, task=task)

    return evaluate


def test_an_evaluation_on_a_gpu_comes_to_the_host_by_one_copy_of_the_plugins(case, measured):
    on_cpu = measured("cpu")
    with simulated_cuda() as gpu:
        on_gpu = measured("cuda", gpu)
        waited = own(gpu)
    assert list(waited.values()) == [1]
    assert "delivery.py" in next(iter(waited))
    case.assert_same(on_gpu, on_cpu)
    assert all(result.signature.device == torch.device("cpu") for result in on_gpu)


def test_a_step_of_many_networks_waits_for_the_objects_of_each_alone(case):
    from pdiff_plugins.openmmlab.lockstep import Lockstep

    values = case.values()
    values["task"]["data"]["scenes"] |= {"train": 24, "select": 24, "test": 24}
    values["collect"]["conditions"] = {"type": "classes", "subsets": [["0"], ["1", "7"], ["0", "1", "7"]]}
    with simulated_cuda() as gpu:
        task = case.build({**values, "device": "cuda"})
        names, tensors = case.candidates(task=task).layout.names, task.model.state_dict()
        # A resumed collection, and one behind its first block, begins with what it has read from a file.
        begin, table = {name: tensors[name].detach().cpu() for name in names}, task.splits["train"].kind.table
        settings = {"steps": 3, "optimizer": {"type": "AdamW", "lr": 1e-3}, "mode": "eval"}
        for step in Lockstep(task, begin, table, 0, "train", **settings).run():
            if step == 2:
                gpu.reset()
        waited = own(gpu)
    samples = task.splits["train"].loader["batch_size"]
    assert sum(waited.values()) == (len(table) * samples if case.plugin == "detection" else 0)


def test_a_training_fetches_its_figures_for_the_log_alone(case, tmp_path):
    values = {**case.values(), "device": "cuda"}
    values["collect"]["finetune"]["steps"] = 4
    with simulated_cuda() as gpu:
        task, cfg = case.build(values), resolve(values)
        names = case.hook.select_params(task=task, cfg=cfg)
        given = {"task": task, "names": names, "cfg": cfg, "state": None, "branch": None}
        steps = [s for s in case.hook.collect(**given, folder=tmp_path) if s.params]
        assert len(steps) == 4
        assert [place for place in gpu.places if "message_hub" in place] == []
