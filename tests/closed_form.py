"""A plugin whose networks are computed from their condition, not trained, so that a whole run takes a second.

A network is a linear layer with two outputs. The first is f(c) x, the second f(1 - c) x, f linear in the condition c:
to exchange the two is to turn every bit of c round. A network of the second lineage has the other sign, which is as
good: the average of the two lineages is nothing.
"""

import math
from itertools import product

import torch
from torch import nn
from torch.nn.functional import linear

from pdiff import Evaluation, Metric, Snapshot, Task, call, derive_seed, hookimpl

WIDTH, SAMPLES = 6, 24


def noise(*shape, seed):
    """Return white noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(values):
    """Return weight `(2, WIDTH)` of the network for the values `(C,)` of a condition."""
    directions = noise(len(values), WIDTH, seed=1)
    return noise(1, WIDTH, seed=2) + torch.stack([values, 1 - values]) @ directions


@hookimpl
def build(cfg):
    """Return the task (`cfg.task`)."""
    return call(task, cfg.task, "task")


def task(higher: bool = True, chance: float | None = 0.0, scores: bool = True, measured: bool = True, ill: int = 0):
    """Return the task: of which metric, with scores or not, and every `ill`th network dead on the split test."""
    model = nn.Linear(WIDTH, 2, bias=False)
    nn.init.zeros_(model.weight)
    model.settings = {"scores": scores, "measured": measured, "ill": ill}
    splits = {name: noise(SAMPLES, WIDTH, seed=3 + place) for place, name in enumerate(("train", "select", "test"))}
    return Task(model, splits, Metric("fit", higher, chance, 1.0 if higher else 0.0))


@hookimpl
def select_params(task):
    """Select the only tensor."""
    return ["weight"]


@hookimpl
def collect(task, names, cfg):
    """Yield networks for conditions (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", seed=cfg.seed)


def snapshots(
    seed,
    networks: int = 30,
    numbers: int = 2,
    bits: bool = False,
    whole: bool = False,
    each: int = 1,
    lineages: int = 1,
    width: float = 0.02,
    constant: bool = False,
    conditional: bool = True,
):
    """Yield networks, `each` for a condition and `lineages` of each, with noise of standard deviation `width`."""
    torch.manual_seed(derive_seed(seed, "conditions"))
    values = torch.rand(networks, numbers)
    if bits:
        values = torch.tensor(list(product([0.0, 1.0], repeat=numbers))[1 : None if whole else -1])
    if constant:
        values[:, -1] = 0.5
    for row, (number, lineage, _) in enumerate(product(range(len(values)), range(lineages), range(each))):
        weight = (-1) ** lineage * exact(values[number]) + width * noise(2, WIDTH, seed=derive_seed(seed, row))
        condition = {f"bit{place}": value for place, value in enumerate(values[number].tolist())}
        yield Snapshot({"weight": weight}, {"network": lineage, "step": row}, None, condition if conditional else None)


@hookimpl
def finetune(start, conditions, steps):
    """Go with every step half of the way to the network for each condition."""
    for values in conditions.values:
        yield {"weight": torch.lerp(start["weight"], exact(values), 1 - 0.5**steps)}


@hookimpl
def loss(task, params, condition, step):
    """Return how far the outputs are from those of the network for the condition, on the batch of a step."""
    x = task.splits["train"][step % 3 :: 3]
    values = torch.full((2,), 0.5) if condition is None else torch.tensor(list(condition.values()))
    return (linear(x, params["weight"]) - linear(x, exact(values))).square().mean()


@hookimpl
@torch.no_grad()
def evaluate(task, candidates, split):
    """Hold each candidate against the network for its condition, of either lineage."""
    x = task.splits[split]
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        y = task.model(x)
        values = torch.full((2,), 0.5)
        if candidates.conditions is not None:
            values = candidates.conditions.values[index]
        y = max((y, -y), key=lambda y: (y * linear(x, exact(values))).sum())
        yield evaluation(task, index, split, x, y, values)


@hookimpl
@torch.no_grad()
def ensemble(task, candidates, split):
    """Hold the average of the outputs of all candidates, which are for one condition, against that condition's."""
    x, values = task.splits[split], torch.full((2,), 0.5)
    if candidates.conditions is not None:
        assert len(candidates.conditions.distinct()[0]) == 1
        values = candidates.conditions.values[0]
    y = torch.stack([linear(x, params["weight"]) for params in candidates]).mean(0)
    return evaluation(task, 1, split, x, y, values)


def evaluation(task, index, split, x, y, values):
    """Return what a candidate with outputs `y` reached, for the values of its condition."""
    settings, metric = task.model.settings, task.metric
    error = (y - linear(x, exact(values))).abs().mean(1).clamp(max=1.0)
    scores = 1 - error if metric.higher_is_better else error
    alive = bool(y.isfinite().all()) and not (settings["ill"] and split == "test" and index % settings["ill"] == 0)
    found = None
    if alive and settings["measured"] and split == "test":
        basis, start = x @ noise(len(values), WIDTH, seed=1).T, x @ noise(1, WIDTH, seed=2).T
        solved = torch.linalg.lstsq(basis, y[:, :1] - start).solution[:, 0].tolist()
        found = {f"bit{place}": value for place, value in enumerate(solved)}
    value = scores.mean().item() if alive else metric.worst
    shown = scores if settings["scores"] else None
    if not math.isfinite(value) and shown is not None:
        shown = torch.full_like(scores, math.nan)
    return Evaluation(value, error > 0.1, shown, condition=found)
