"""A whole MLP on a table: how far a diabetes progresses within a year, from ten measurements of each of 442 patients.

Shows a metric that is the better the lower, signatures that are numbers with a similarity of their own, a selection of
everything, an ensemble.
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn.functional import l1_loss, normalize

from pdiff import Evaluation, Metric, Snapshot, Task, call, hookimpl, resolve_device

BOUNDS = {"train": (0, 242), "select": (242, 342), "test": (342, 442)}


def read_table(device):
    """Return measurements `(442, 10)` and progression `(442, 1)` in random order, in the training part's deviations."""
    measured, target = load_diabetes(return_X_y=True, scaled=False)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(measured).float()[order], torch.tensor(target).float()[order, None]
    known = slice(*BOUNDS["train"])
    return tuple(((values - values[known].mean(0)) / values[known].std(0)).to(device) for values in (x, y))


def alike(a, b):
    """Return the cosine of the residuals `(A, S)` and `(B, S)` of every pair: 1 where both err in the same way."""
    return normalize(a, dim=1) @ normalize(b, dim=1).T


@hookimpl
def build(cfg):
    """Build the network from `cfg.task`."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, width: int = 32):
    """Return the task; its metric is the mean absolute error, and chance says the training data's median."""
    torch.manual_seed(seed)
    x, y = read_table(device)
    splits = {name: (x[slice(*rows)], y[slice(*rows)]) for name, rows in BOUNDS.items()}
    model = nn.Sequential(nn.Linear(10, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
    known = splits["train"][1]
    chance = l1_loss(known.median().expand_as(known), known).item()
    metric = Metric("MAE", higher_is_better=False, chance=chance)
    return Task(model.to(device), splits, metric, similarity=alike)


def train(task, optimizer, batch_size):
    """Take one step."""
    x, y = task.splits["train"]
    rows = torch.randint(len(x), (batch_size,), device=x.device)
    loss = l1_loss(task.model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@hookimpl
def collect(task, names, cfg):
    """Train the network, and go on at a lower rate (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed)


def snapshots(task, names, seed, warmup: int, steps: int, batch_size: int = 32, lr: float = 5e-3):
    """Yield the network after each of the last `steps` steps."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(warmup):
        train(task, optimizer, batch_size)
    optimizer.param_groups[0]["lr"] = lr
    for step in range(steps):
        loss = train(task, optimizer, batch_size)
        yield Snapshot.of(task.model, names, {"step": step, "loss": loss.item()})


def measure(predicted, y):
    """Return the evaluation of predictions `(S, 1)`; a network without a finite answer is dead."""
    residual = (predicted - y).flatten().cpu()
    error = residual.abs().mean().item()
    return Evaluation(error if error < float("inf") else float("inf"), signature=residual, scores=residual.abs())


def predictions(task, candidates, split):
    """Yield what each candidate predicts."""
    with torch.no_grad():
        for index in range(len(candidates)):
            candidates.load(task.model, index)
            yield task.model(task.splits[split][0])


@hookimpl
def evaluate(task, candidates, split):
    """Measure each candidate's mean absolute error."""
    for predicted in predictions(task, candidates, split):
        yield measure(predicted, task.splits[split][1])


@hookimpl
def ensemble(task, candidates, split):
    """Measure the average of all predictions."""
    return measure(torch.stack(list(predictions(task, candidates, split))).mean(0), task.splits[split][1])
