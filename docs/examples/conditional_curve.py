"""Small networks for curves a sin x + b cos x, whose condition is a and b; each learns from sixteen noisy points.

Shows a population with a condition for each network, data that follow from it, and a measured condition: which a and b
does a network draw?
"""

import math

import torch
from torch import nn
from torch.nn.functional import mse_loss, normalize

from pdiff import Evaluation, Metric, Snapshot, Task, call, derive_seed, hookimpl

X = torch.linspace(-math.pi, math.pi, 401)[:-1, None]  # one period


def curve(condition, x):
    """Return the points `(S, 1)` of the curve that a condition asks for."""
    return condition["a"] * x.sin() + condition["b"] * x.cos()


def alike(one, other):
    """Return the cosine of the errors `(A, S)` and `(B, S)` of every pair."""
    return normalize(one, dim=1) @ normalize(other, dim=1).T


@hookimpl
def build(cfg):
    """Return the task: a network of 49 parameters; chance is the straight line 0, on the average of all conditions."""
    torch.manual_seed(cfg.seed)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    splits = {"train": X[::25], "select": X[1::2], "test": X[::2]}
    metric = Metric("squared error", higher_is_better=False, chance=1 / 3, best=0.0)
    return Task(model, splits, metric, similarity=alike)


@hookimpl
def collect(task, names, cfg):
    """Train a network for each condition (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed)


def snapshots(task, names, seed, networks: int, steps: int, noise: float = 0.3, lr: float = 0.02):
    """Yield networks for random conditions, all trained from the same initial weights."""
    x, first = task.splits["train"], {name: value.clone() for name, value in task.model.state_dict().items()}
    for number in range(networks):
        torch.manual_seed(derive_seed(seed, "network", number))
        a, b = torch.empty(2).uniform_(-1, 1).tolist()
        y = curve({"a": a, "b": b}, x) + noise * torch.randn(x.shape)
        task.model.load_state_dict(first)
        optimizer = torch.optim.Adam(task.model.parameters(), lr=lr)
        for _ in range(steps):
            loss = mse_loss(task.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield Snapshot.of(task.model, names, {"branch": number, "loss": loss.item()}, condition={"a": a, "b": b})


@hookimpl
@torch.no_grad()
def evaluate(task, candidates, split):
    """Hold each candidate against the curve that it is for, and measure which one it draws."""
    x = task.splits[split]
    for index, condition in enumerate(candidates.conditions):
        candidates.load(task.model, index)
        y = task.model(x)
        error = (y - curve(condition, x)).flatten()
        measured = {"a": 2 * (y * x.sin()).mean().item(), "b": 2 * (y * x.cos()).mean().item()}
        alive = bool(error.isfinite().all())
        metric = error.square().mean().item() if alive else math.inf
        yield Evaluation(metric, error, error.square(), condition=measured if alive else None)
