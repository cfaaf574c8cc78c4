"""Bring networks into canonical form: what many large ones cost, whether copies are found, what real zoos gain.

    python tools/bench/canonical.py

Large ones are independently initialised networks of timm with random statistics, in a file that is read as needed;
copies are the same networks with their units in random order, and of random scale where that may be. The zoos are
multi-layer perceptrons, trained here on digits from independent seeds; the networks half-way between two of them say
how far apart they are.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from pdiff.canonical.applying import flat, permute, scale, views
from pdiff.canonical.form import KINDS, Form
from pdiff.canonical.tracing import trace
from pdiff.runtime.cost import peak_memory, reset_peak_memory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population
from pdiff.weights.roles import free_names

HIDDEN = ((16,), (32, 32), (24, 24, 24, 24))
STEPS, BATCH = 600, 64
COPIES = 4


def rng(seed: int) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def large(name: str, folder: Path, count: int) -> None:
    """Print what the canonical form of `count` networks of timm costs, and how far from the first ones copies end."""
    population, symmetries = write_large(name, folder / "networks", count)
    layout, vectors = population.layout, population.tensor()
    print(f"{name}: {count} networks of {layout.size:,} values, {len(symmetries.groups)} groups of units", flush=True)
    for kind in KINDS:
        reset_peak_memory()
        start, own = time.perf_counter(), time.process_time()
        form = Form.fit(kind, layout, symmetries, vectors, range(count))
        canonical = Population.create(folder / kind, layout)
        for row in range(count):
            canonical.append(form.apply(vectors[row : row + 1], form.permutations(vectors[row]))[0], {"step": row})
        clock, own, peak = time.perf_counter() - start, time.process_time() - own, peak_memory() / 2**30
        print(f"{kind}: {clock:.0f} s, {own:.0f} s of processors; peak {peak:.2f} GiB", flush=True)
        for row in range(min(COPIES, count)):
            original, copied = canonical.tensor()[row], form.apply(copy(form, vectors[row], row)[None])[0]
            distance = (original - copied).norm() / original.norm()
            print(f"  copy of network {row}: {distance:.1e} of the norm away from it")


def write_large(name: str, folder: Path, count: int):
    """Write independently initialised networks of timm, and return them and their symmetries."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    names = free_names(model.state_dict(), model.state_dict())
    layout = Layout.of(model.state_dict(), names)
    population = Population.create(folder, layout)
    for step in range(count):
        vector = layout.flatten(timm.create_model(name).state_dict())
        population.append(vector + 0.01 * torch.randn(layout.size, generator=rng(step)), {"step": step})
    return population, trace(model, (torch.zeros(1, *model.default_cfg["input_size"]),), layout.names)


def copy(form: Form, vector: Tensor, seed: int) -> Tensor:
    """Return the same network with its units in random order, each of a random scale from 1/2 to 2 where it is free."""
    symmetries, source = form.symmetries, rng(seed)
    permutations = [torch.randperm(group.size, generator=source) for group in symmetries.groups]
    factors = [0.5 + 1.5 * torch.rand(gain.size, generator=source) for gain in form.gains]
    tensors = permute(views(form.layout, vector), symmetries.groups, permutations)
    return flat(form.layout, scale(tensors, form.gains, factors), 0)


def small(hidden: tuple[int, ...], count: int) -> None:
    """Train a zoo, and print what the networks half-way between two of it lose, as they are and in canonical form."""
    (x, y), test = digits()
    models = [perceptron(hidden, seed) for seed in range(count)]
    layout = Layout.of(models[0].state_dict())
    train(models, x, y)
    vectors = torch.stack([layout.flatten(model.state_dict()) for model in models])
    symmetries = trace(models[0], (x[:2],), layout.names)
    print(f"64-{'-'.join(map(str, hidden))}-10, {count} networks: test loss {losses(models[0], layout, vectors, test)}")
    for kind, form in forms(layout, symmetries, vectors):
        start = time.perf_counter()
        canonical = form.apply(vectors) if form else vectors
        halves = torch.stack([(one + other) / 2 for one, other in pairwise(canonical)])
        spread = (canonical - canonical.mean(0)).norm(dim=1).mean()
        seconds = f", {time.perf_counter() - start:.1f} s" if form else ""
        print(f"  {kind}: {losses(models[0], layout, halves, test)} half-way, {spread:.2f} from the mean{seconds}")


def forms(layout: Layout, symmetries, vectors: Tensor) -> Iterator[tuple[str, Form | None]]:
    """Yield each kind of form, fitted, first none."""
    yield "none", None
    yield from ((kind, Form.fit(kind, layout, symmetries, vectors, range(len(vectors)))) for kind in KINDS)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return images `(n, 64)` and classes of scikit-learn's digits, for training and for the test."""
    from sklearn.datasets import load_digits

    images, classes = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=rng(0))
    x, y = images[order].float() / 16, classes[order].long()
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


def perceptron(hidden: tuple[int, ...], seed: int) -> nn.Sequential:
    """Return an untrained network."""
    torch.manual_seed(seed)
    layers = [layer for pair in pairwise((64, *hidden)) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 10))


def train(models: list[nn.Sequential], x: Tensor, y: Tensor) -> None:
    """Train networks at once, each with its own order of the data."""
    params, _ = stack_module_state(models)
    optimizer = torch.optim.AdamW(params.values(), 3e-3)
    forward = vmap(lambda own, images: functional_call(models[0], own, (images,)))
    source = rng(0)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (len(models), BATCH), generator=source)
        loss = cross_entropy(forward(params, x[rows]).flatten(0, 1), y[rows].flatten()) * len(models)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for number, model in enumerate(models):
        model.load_state_dict({name: stacked[number].detach() for name, stacked in params.items()})


@torch.no_grad()
def losses(model: nn.Module, layout: Layout, vectors: Tensor, data: tuple[Tensor, Tensor]) -> str:
    """Return the mean loss and accuracy of networks `(M, P)`, as text."""
    x, y = data
    outputs = [functional_call(model, layout.unflatten(vector), (x,)) for vector in vectors]
    loss = torch.stack([cross_entropy(own, y) for own in outputs]).mean()
    accuracy = torch.stack([(own.argmax(1) == y).float().mean() for own in outputs]).mean()
    return f"{loss:.3f} (accuracy {accuracy:.3f})"


@command()
def main() -> int:
    """Print the lines of the large networks, then those of the zoos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="resnet18", help="of the large networks in timm (default: resnet18)")
    parser.add_argument("--count", type=int, default=64, help="of large networks; 0 for none (default: 64)")
    parser.add_argument("--zoo", type=int, default=64, help="networks of each zoo; 0 for none (default: 64)")
    parser.add_argument("--place", type=Path, help="folder for the vectors (default: that of temporary files)")
    arguments = parser.parse_args()
    machine = environment(torch.device("cpu"))
    print(f"{machine['processor']}, torch {machine['packages']['torch']}, {torch.get_num_threads()} threads")
    if arguments.count:
        with tempfile.TemporaryDirectory(dir=arguments.place) as folder:
            large(arguments.name, Path(folder), arguments.count)
    for hidden in HIDDEN if arguments.zoo else ():
        small(hidden, arguments.zoo)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
