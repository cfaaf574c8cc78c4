"""The output layer of an LSTM that reads handwritten digits row by row, eight steps of eight pixels.

Shows replay, which runs the LSTM once for all candidates, a collection that goes on after an interruption from packed
states, progress, and `head` in the selector.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from pdiff import (
    Evaluation,
    Metric,
    Replay,
    Snapshot,
    Task,
    call,
    derive_seed,
    hookimpl,
    pack,
    progress,
    resolve_device,
    unpack,
)

BOUNDS = {"train": (0, 500), "select": (500, 797), "test": (797, 1797)}


class Reader(nn.Module):
    """Reads sequences `(B, T, C)` and says of each which of ten classes it is, `(B, 10)`."""

    def __init__(self, width):
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, sequences):
        """Return the logits after the last step."""
        return self.head(self.lstm(sequences)[0][:, -1])


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task`."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, width: int = 64, noise: float = 0.2):
    """Return the task; `noise` is added to the pixels, which lie between 0 and 1, once for all."""
    rng = torch.Generator().manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=rng)
    x = images.reshape(-1, 8, 8).float()[order] / 16
    x, y = (x + noise * torch.randn(x.shape, generator=rng)).to(device), labels[order].to(device)
    splits = {name: (x[slice(*rows)], y[slice(*rows)]) for name, rows in BOUNDS.items()}
    torch.manual_seed(seed)
    return Task(Reader(width).to(device), splits, Metric("accuracy", chance=0.1), head=("head",))


@hookimpl
def collect(task, names, cfg, state):
    """Train the network, then the selection alone (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed, state=state)


def snapshots(task, names, seed, state, train: int, finetune: int, batch_size: int = 32, lr: float = 3e-2):
    """Yield the selection after each step of its fine-tuning.

    What a step draws follows from its number, and all else that it needs is in the state of the last snapshot. So an
    interrupted collection ends with the same bytes; pdiff has put the trained network back into the task by then.
    """
    if state is None:
        steps(task, torch.optim.Adam(task.model.parameters(), lr=5e-3), range(train), (seed, "train"), batch_size)
    task.model.requires_grad_(False)
    tensors = [task.model.get_parameter(name).requires_grad_() for name in names]
    optimizer, first = torch.optim.Adam(tensors, lr=lr), 0
    if state is not None:
        kept = unpack(state)
        first = kept["step"] + 1
        optimizer.load_state_dict(kept["optimizer"])
        for tensor, value in zip(tensors, kept["tensors"], strict=True):
            tensor.data.copy_(value)
    with progress("fine-tune", finetune, first) as advance:
        for step in range(first, finetune):
            loss = steps(task, optimizer, [step], (seed, "finetune"), batch_size)
            advance()
            kept = {"step": step, "optimizer": optimizer.state_dict(), "tensors": tensors}
            yield Snapshot.of(task.model, names, {"step": step, "loss": loss}, pack(kept))


def steps(task, optimizer, numbers, seed, batch_size):
    """Take the steps of some numbers, and return the last one's loss."""
    x, y = task.splits["train"]
    for number in numbers:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(derive_seed(*seed, number)))[:batch_size]
        loss = cross_entropy(task.model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@hookimpl
def evaluate(task, candidates, split):
    """Measure each candidate's accuracy; the LSTM, which no candidate changes, runs once."""
    x, y = task.splits[split]
    for logits in Replay(task.model.eval(), candidates)(x):
        wrong = (logits.argmax(1) != y).cpu()
        yield Evaluation(1 - wrong.double().mean().item(), signature=wrong, scores=~wrong)
