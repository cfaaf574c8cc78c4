"""Small networks for curves a sin x + b cos x, whose condition is a and b; each learns from sixteen noisy points.

Shows a population with a condition for each network, data that follow from it, the training's loss for any condition,
and a measured condition: which a and b does a network draw?
"""

import math

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import mse_loss, normalize

from pdiff import Evaluation, Metric, Snapshot, Task, call, derive_seed, hookimpl

X = torch.linspace(-math.pi, math.pi, 401)[:-1, None]  # one period
NOISE = 0.3  # of the points, unless `collect.noise` says otherwise


def curve(condition, x):
    """Return the points `(S, 1)` of the curve that a condition asks for."""
    return condition["a"] * x.sin() + condition["b"] * x.cos()


def points(seed, condition, x, noise):
    """Return noisy points `(S, 1)` of the curve, for one condition always the same."""
    rng = torch.Generator().manual_seed(derive_seed(seed, "points", *condition.values()))
    return curve(condition, x) + noise * torch.randn(x.shape, generator=rng)


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


def snapshots(task, names, seed, networks: int, steps: int, noise: float = NOISE, lr: float = 0.02):
    """Yield networks for random conditions, all trained from the same initial weights."""
    x, first = task.splits["train"], {name: value.clone() for name, value in task.model.state_dict().items()}
    for number in range(networks):
        torch.manual_seed(derive_seed(seed, "network", number))
        condition = dict(zip("ab", torch.empty(2).uniform_(-1, 1).tolist(), strict=True))
        y = points(seed, condition, x, noise)
        task.model.load_state_dict(first)
        optimizer = torch.optim.Adam(task.model.parameters(), lr=lr)
        for _ in range(steps):
            loss = mse_loss(task.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield Snapshot.of(task.model, names, {"branch": number, "loss": loss.item()}, condition=condition)


@hookimpl
def loss(task, cfg, params, condition):
    """Hold a network against all points that one for the condition is trained on, as every step of a training does."""
    x = task.splits["train"]
    y = points(cfg.seed, condition, x, cfg.collect.get("noise", NOISE))
    return mse_loss(functional_call(task.model, dict(params), (x,)), y)


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
