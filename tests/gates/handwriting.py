"""A plugin that can be spoilt: a small network on handwritten digits, of which all parameters are regenerated.

A branch walks around the trained network in a few directions, the same for all branches. `collect.networks` mixes
independently initialised networks; `collect.nan_at` lets the walk diverge at a step.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pdiff import Evaluation, Metric, Snapshot, Task, hookimpl

AXES = 16


def network(seed):
    torch.manual_seed(seed)
    hidden = [torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(32, 10))


@hookimpl
def build(cfg):
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    splits = {"train": (x[:700], y[:700]), "select": (x[700:1000], y[700:1000]), "test": (x[1000:], y[1000:])}
    return Task(network(cfg.seed), splits, Metric("accuracy", chance=0.1))


@hookimpl
def collect(task, names, cfg):
    x, y = task.splits["train"]
    branches, steps = cfg.collect.get("branches", 5), cfg.collect.get("steps", 20)
    for number in range(cfg.collect.get("networks", 1)):
        task.model.load_state_dict(network(cfg.seed + number).state_dict())
        optimizer = torch.optim.Adam(task.model.parameters(), lr=5e-3)
        for _ in range(150):
            batch = torch.randint(len(x), (64,))
            loss = torch.nn.functional.cross_entropy(task.model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trained = parameters_to_vector(task.model.parameters()).detach()
        axes = torch.randn(len(trained), AXES) / len(trained) ** 0.5
        for branch in range(branches):
            place = torch.randn(AXES)
            for step in range(branch * steps, (branch + 1) * steps):
                place = 0.6 * place + 0.8 * torch.randn(AXES)
                vector_to_parameters(trained + axes @ place, task.model.parameters())
                params = {name: tensor.detach().clone() for name, tensor in task.model.named_parameters()}
                if step == cfg.collect.get("nan_at"):
                    params["2.bias"][3] = float("nan")
                yield Snapshot(params, {"network": number, "branch": branch, "step": step})


@hookimpl
def evaluate(task, candidates, split):
    x, y = task.splits[split]
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        wrong = task.model(x).argmax(1) != y
        yield Evaluation(1 - wrong.double().mean().item(), signature=wrong, scores=~wrong)
