"""A small network on scikit-learn's handwritten digits: replace network, data and metric by your own."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pdiff import Evaluation, Metric, Replay, Snapshot, Task, call, derive_seed, hookimpl, pack, resolve_device, unpack

BATCH = 16  # images of a step


@hookimpl
def build(cfg):
    """Build the network, its data and its metric from `cfg.task`."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed: int, device: torch.device, hidden: int = 32) -> Task:
    """Return the task, network and data on a device; `hidden` is the width of the network."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, 10)).to(device)
    return Task(model, digits(device), Metric("accuracy", chance=0.1), head=("3",))


def digits(device: torch.device) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return images `(S, 64)` and labels `(S,)` of each split, disjoint, on a device."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:600], "select": order[600:1100], "test": order[1100:]}
    return {split: (images[rows].to(device), labels[rows].to(device)) for split, rows in parts.items()}


@hookimpl
def collect(task, names, cfg, state):
    """Train everything, then the selection alone: a snapshot after each of its steps."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed, state=state)


def snapshots(task, names, seed: int, state, train: int = 600, finetune: int = 100, lr: float = 0.02, batch=BATCH):
    """Yield `finetune` snapshots behind `train` steps of Adam; with a `state`, those behind the one it belongs to."""
    model, first = task.model.train(), 0
    if state is None:
        optimizer = torch.optim.Adam(model.parameters(), lr)
        for step in range(train):
            take_step(task, optimizer, batch, derive_seed(seed, "train", step))
    selected = {name: tensor for name, tensor in model.named_parameters() if name in names}
    optimizer = torch.optim.Adam(selected.values(), lr)
    if state is not None:  # pdiff has put the frozen part back into the network, and nothing else
        kept = unpack(state)
        first = kept["step"] + 1
        model.load_state_dict({**model.state_dict(), **kept["selected"]})
        optimizer.load_state_dict(kept["optimizer"])
    for step in range(first, finetune):
        reached = take_step(task, optimizer, batch, derive_seed(seed, "finetune", step))
        kept = {"step": step, "selected": selected, "optimizer": optimizer.state_dict()}
        yield Snapshot.of(model, names, {"step": step, "loss": reached.item()}, pack(kept))


def batch_of(task, batch: int, seed: int):
    """Return images and labels of a random batch, which follows from its own seed, and so comes again when resumed."""
    images, labels = task.splits["train"]
    rows = torch.randint(len(labels), (batch,), generator=torch.Generator().manual_seed(seed))
    return images[rows], labels[rows]


def take_step(task, optimizer, batch: int, seed: int):
    """Take one step on a random batch, and return its loss, not fetched: a GPU would be waited for in every step."""
    images, labels = batch_of(task, batch, seed)
    reached = cross_entropy(task.model(images), labels)
    optimizer.zero_grad()
    reached.backward()
    optimizer.step()
    return reached.detach()


@hookimpl
def loss(task, cfg, params, step):
    """Return what a step of the collection minimises, of any selection: pdiff may train generators through it."""
    images, labels = batch_of(task, cfg.collect.get("batch", BATCH), derive_seed(cfg.seed, "finetune", step))
    return cross_entropy(functional_call(task.model.train(), dict(params), (images,)), labels)


@hookimpl
def evaluate(task, candidates, split):
    """Measure the accuracy of each candidate; its signature is which samples it gets wrong."""
    images, labels = task.splits[split]
    replay = Replay(task.model.eval(), candidates)  # the layers before the selection run once for all candidates
    for logits in replay(images):
        wrong = logits.argmax(1) != labels
        yield Evaluation(1 - wrong.double().mean().item(), signature=wrong, scores=~wrong)
