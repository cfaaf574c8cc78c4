"""A plugin whose networks are made for a condition: straight lines of a wanted slope and height, a little off."""

import torch

from pdiff import Evaluation, Metric, Snapshot, Task, hookimpl

NETWORKS = 200


@hookimpl
def build(cfg):
    splits = dict.fromkeys(("select", "test"), torch.linspace(-1, 1, 20)[:, None])
    return Task(torch.nn.Linear(1, 6), splits, Metric("closeness"))


@hookimpl
def collect(task, names, cfg):
    rng = torch.Generator().manual_seed(cfg.seed)
    for number in range(NETWORKS):
        slope, height = torch.randn(2, generator=rng).tolist()
        off = 0.1 * torch.randn(2, 6, generator=rng)
        params = {"weight": slope + off[0, :, None], "bias": height + off[1]}
        yield Snapshot(params, {"network": number}, condition={"slope": slope, "height": height})


@hookimpl
def evaluate(task, candidates, split):
    x = task.splits[split]
    for index, condition in enumerate(candidates.conditions):
        candidates.load(task.model, index)
        error = (task.model(x).mean(1) - condition["slope"] * x[:, 0] - condition["height"]).abs()
        yield Evaluation(1 - error.mean().item(), signature=error > 0.1, scores=1 - error)
