"""An implicit neural representation: a network that says of each place in a photograph which colour it has.

Shows a metric that is no mean over samples (PSNR, in dB), signatures without labels and their similarity, a selection
by name with replay, and pictures in the report.
"""

import math

import torch
from torch import nn
from torch.nn.functional import interpolate, mse_loss, normalize

from pdiff import Evaluation, Metric, PdiffError, Picture, Replay, Snapshot, Task, call, hookimpl, resolve_device

IMAGES = ("china.jpg", "flower.jpg")
SHARES = {"train": (0.0, 0.5), "select": (0.5, 0.75), "test": (0.75, 1.0)}


class Sines(nn.Module):
    """Turns places `(S, 2)` into sines `(S, width)` of random frequencies, which do not change."""

    def __init__(self, width, scale):
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(2, width))

    def forward(self, places):
        """Return the sines."""
        return torch.sin(places @ self.frequencies)


def read_image(name, height):
    """Return places `(S, 2)` from -1 to 1 and colours `(S, 3)` of a photograph of scikit-learn, made smaller."""
    from sklearn.datasets import load_sample_image

    if name not in IMAGES:
        raise PdiffError(f"task.image: got {name!r}, expected one of {', '.join(IMAGES)}.")
    pixels = torch.tensor(load_sample_image(name)).movedim(2, 0)[None] / 255
    width = round(height * pixels.shape[3] / pixels.shape[2])
    colours = interpolate(pixels, (height, width), mode="area")[0].flatten(1).T
    return torch.cartesian_prod(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)), colours


def psnr(colours, target):
    """Return the peak signal-to-noise ratio in dB; of a network without a finite answer, what is worse than any."""
    error = mse_loss(colours, target).item()
    return -10 * math.log10(error) if error < math.inf else -math.inf


def alike(a, b):
    """Return the cosine of the errors `(A, S, 3)` and `(B, S, 3)` of every pair."""
    return normalize(a.flatten(1), dim=1) @ normalize(b.flatten(1), dim=1).T


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task`."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, image: str, height: int = 48, width: int = 64, scale: float = 8.0):
    """Return the task: half of the pixels train, a quarter chooses, a quarter is reported; `all` is for pictures."""
    torch.manual_seed(seed)
    places, colours = (tensor.to(device) for tensor in read_image(image, height))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).to(device)
    rows = {name: order[int(a * len(order)) : int(b * len(order))] for name, (a, b) in SHARES.items()}
    splits = {name: (places[chosen], colours[chosen]) for name, chosen in rows.items()}
    splits["all"] = (places, colours.reshape(height, -1, 3))
    model = nn.Sequential(Sines(width, scale), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3), nn.Sigmoid())
    plain = splits["train"][1].mean(0)
    metric = Metric("PSNR (dB)", chance=psnr(plain.expand_as(splits["test"][1]), splits["test"][1]))
    return Task(model.to(device), splits, metric, similarity=alike, facts={"image": image, "chance": "one colour"})


@hookimpl
def collect(task, names, cfg):
    """Fit the network, then the selection alone (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed)


def snapshots(task, names, seed, train: int, finetune: int, batch_size: int = 256, lr: float = 5e-3):
    """Yield the selection after each step of its fine-tuning."""
    places, colours = task.splits["train"]
    rng = torch.Generator().manual_seed(seed)
    for count, chosen, rate in ((train, [n for n, _ in task.model.named_parameters()], 1e-2), (finetune, names, lr)):
        optimizer = torch.optim.Adam([task.model.get_parameter(name) for name in chosen], lr=rate)
        for step in range(count):
            rows = torch.randint(len(places), (batch_size,), generator=rng)
            loss = mse_loss(task.model(places[rows]), colours[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if chosen is names:
                yield Snapshot.of(task.model, names, {"step": step, "loss": loss.item()})


@hookimpl
def evaluate(task, candidates, split):
    """Measure each candidate's PSNR on pixels that it was not fitted to."""
    places, target = task.splits[split]
    for colours in Replay(task.model.eval(), candidates)(places):
        yield Evaluation(psnr(colours, target), signature=(colours - target).cpu())


@hookimpl
def draw(task, picks, folder):
    """Draw the photograph, and what the best network of each source makes of it."""
    from matplotlib.image import imsave

    places, target = task.splits["all"]
    best = {name: next(Replay(task.model.eval(), candidates)(places)) for name, candidates in picks.items()}
    shown = [target, *(best[name].reshape(target.shape) for name in ("trained", "generated"))]
    large = torch.cat(shown, 1).repeat_interleave(4, 0).repeat_interleave(4, 1)
    imsave(folder / "photograph.png", large.cpu().numpy())
    caption = "Left the photograph, in the middle the best trained network's, right the best generated one's."
    return [Picture("photograph.png", "The photograph", caption)]
