"""A plugin whose network normalises by running statistics; it yields the training data as the network takes them."""

import torch

from pdiff import Evaluation, Metric, Snapshot, Task, hookimpl

BATCH = 16


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@hookimpl
def build(cfg):
    torch.manual_seed(0)
    hidden = [torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout()]
    splits = {name: noise(64, 4, seed=place) for place, name in enumerate(("train", "select", "test"))}
    return Task(torch.nn.Sequential(*hidden, torch.nn.Linear(8, 2)), splits, Metric("closeness", chance=0.0))


@hookimpl
def collect(task, names, cfg):
    for number in range(12):
        tensors = {}
        for place, name in enumerate(names):
            tensor = task.model.state_dict()[name]
            off = 0.1 * noise(*tensor.shape, seed=100 * number + place)
            tensors[name] = tensor * off.exp() if name.endswith("running_var") else tensor + off
        yield Snapshot(tensors, {"branch": number // 2, "step": number % 2})


@hookimpl
@torch.no_grad()
def evaluate(task, candidates, split):
    x = task.splits[split]
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        error = task.model.eval()(x).square().mean(1).clamp(max=1)
        yield Evaluation(1 - error.mean().item(), error > 0.1, 1 - error)


@hookimpl
def inputs(task, split):
    assert split == "train"
    return ((part,) for part in task.splits[split].split(BATCH))
