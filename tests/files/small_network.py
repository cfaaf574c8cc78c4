"""A task that is its network: a convolution, a norm and a linear layer; or the same with adapters of peft."""

import torch
from torch import nn

from pdiff import Evaluation, Metric, Task, hookimpl, select


class Small(nn.Sequential):
    """The network, with names as a zoo may have them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.flat = nn.Flatten()
        self.head = nn.Linear(12, 4)


@hookimpl
def build(cfg):
    """Build the network, its adapters if `task.adapters` asks for them, and random images."""
    torch.manual_seed(cfg.seed)
    model = Small()
    if cfg.task.get("adapters"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**cfg.task.adapters))
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(20, 1, 3, 3, generator=rng), torch.randint(4, (20,), generator=rng)
    splits = dict.fromkeys(("train", "select", "test"), (images, labels))
    return Task(model, splits, Metric("accuracy", chance=0.25))


@hookimpl
def select_params(task, cfg):
    """Select as the config says."""
    return select(task.model, cfg.select)


@hookimpl
def evaluate(task, candidates, split):
    """Measure each candidate's accuracy."""
    images, labels = task.splits[split]
    for number in range(len(candidates)):
        candidates.load(task.model, number)
        right = task.model.eval()(images).argmax(1) == labels
        yield Evaluation(right.double().mean().item(), signature=~right, scores=right)
