"""A plugin whose networks are one small network with noise, the units of each lineage in an order of their own.

In their own order and scale the average of two lineages is nothing; in one order it is the network without noise.
"""

import torch
from torch import nn

from pdiff import Evaluation, Metric, Snapshot, Task, call, derive_seed, hookimpl

INPUTS, HIDDEN, OUTPUTS, SAMPLES = 6, 5, 2, 24


def noise(*shape, seed):
    """Return white noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    """Return the network that all others are made of."""
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS))
    for place, parameter in enumerate(model.parameters()):
        parameter.data = noise(*parameter.shape, seed=10 + place)
    return model


@hookimpl
def build(cfg):
    """Return the task: the nearer the outputs are to the network's, the better."""
    splits = {name: noise(SAMPLES, INPUTS, seed=place) for place, name in enumerate(("train", "select", "test"))}
    return Task(network(), splits, Metric("fit", chance=0.0, best=1.0))


@hookimpl
def select_params(task):
    """Select everything."""
    return [name for name, _ in task.model.named_parameters()]


@hookimpl
def collect(task, names, cfg):
    """Yield networks (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", seed=cfg.seed)


def snapshots(seed, lineages: int = 12, each: int = 3, width: float = 0.02, copies: int = 0):
    """Yield `each` networks of each lineage with noise of standard deviation `width`; the last `copies` repeat."""
    for lineage in range(lineages):
        own = derive_seed(seed, min(lineage, lineages - copies - 1))
        rng = torch.Generator().manual_seed(derive_seed(seed, "order", lineage))
        order, scale = torch.randperm(HIDDEN, generator=rng), torch.rand(HIDDEN, generator=rng) + 0.5
        for step in range(each):
            params = {name: tensor.clone() for name, tensor in network().state_dict().items()}
            for place, tensor in enumerate(params.values()):
                tensor.add_(noise(*tensor.shape, seed=own % 2**31 + 100 * step + place), alpha=width)
            params["0.weight"] = (params["0.weight"] * scale[:, None])[order]
            params["0.bias"] = (params["0.bias"] * scale)[order]
            params["2.weight"] = (params["2.weight"] / scale)[:, order]
            yield Snapshot(params, {"network": lineage, "step": step})


@hookimpl
def inputs(task, split):
    """Yield the samples."""
    return iter([(task.splits[split],)])


@hookimpl
@torch.no_grad()
def evaluate(task, candidates, split):
    """Hold each candidate against the network."""
    x = task.splits[split]
    wanted = network()(x)
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        error = (task.model(x) - wanted).abs().mean(1).clamp(max=1.0)
        error = torch.where(error.isfinite(), error, 1.0)
        yield Evaluation(1 - error.mean().item(), error > 0.1, 1 - error)
