"""A plugin that can be spoilt: a small network on handwritten digits, of which all parameters are regenerated.

`collect.networks` mixes independently initialised networks; `collect.nan_at` lets the training diverge at a step, which
are counted over the branches.
"""

import torch
from sklearn.datasets import load_digits

from pdiff import Evaluation, Metric, Snapshot, Task, hookimpl


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


def train(model, x, y, steps):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        batch = torch.randint(len(x), (64,))
        loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step, loss.item()


@hookimpl
def collect(task, names, cfg):
    x, y = task.splits["train"]
    steps = cfg.collect.get("steps", 25)
    for number in range(cfg.collect.get("networks", 1)):
        trained = network(cfg.seed + number)
        list(train(trained, x, y, 150))
        for branch in range(cfg.collect.get("branches", 4)):
            task.model.load_state_dict(trained.state_dict())
            for place, loss in train(task.model, x, y, steps):
                step = branch * steps + place
                if step == cfg.collect.get("nan_at"):
                    task.model[2].bias.data[3] = float("nan")
                params = {name: tensor.detach().clone() for name, tensor in task.model.named_parameters()}
                yield Snapshot(params, {"network": number, "branch": branch, "step": step, "loss": loss})


@hookimpl
def evaluate(task, candidates, split):
    x, y = task.splits[split]
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        wrong = task.model(x).argmax(1) != y
        yield Evaluation(1 - wrong.double().mean().item(), signature=wrong, scores=~wrong)
