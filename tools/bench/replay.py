"""Replay against evaluating candidates one by one, on a random-weight timm network and random images.

Two limits: that of the parts, K suffixes as fast as they run by hand; and that of the machine, in which every operation
takes its arithmetic at the rate of the fastest product measured here, or its memory traffic at the rate of a copy of
tensors that size, whichever is longer.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pdiff.runtime.cost import peak_memory, reset_peak_memory
from pdiff.runtime.errors import command
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Replay
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout
from pdiff.weights.select import select

CHUNK = 10  # passes of every kind take turns, so many at a time: noise of the machine meets them all
BY_HAND = ("bn1", "act1", "conv2", "bn2")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet18", help="timm name (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of an image (default: %(default)s)")
    parser.add_argument("--select", default="last_norms(2)", help="selector (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=500, help="K (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images (default: %(default)s)")
    parser.add_argument("--naive", type=int, default=20, help="so many one by one, scaled up (default: %(default)s)")
    parser.add_argument("--memory", choices=("one", "replay"), help="print only baseline and peak memory in bytes")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> tuple[nn.Module, Candidates, torch.Tensor]:
    """Return the network, its candidates and a batch."""
    torch.manual_seed(0)
    network = timm.create_model(arguments.network).eval()
    state = network.state_dict()
    layout = Layout.of(state, select(network, arguments.select))
    vectors = layout.flatten(state) + 0.1 * torch.randn(arguments.candidates, layout.size)
    batch = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    return network, Candidates(vectors, layout, LoadParams().load_params), batch


def timed(function: Callable, *arguments):
    """Return what a call returns, and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def suffix_by_hand(network: nn.Module, module: str, batch: torch.Tensor) -> Callable[[], float]:
    """Return a measurement of the part from a module of a ResNet's last basic block on, on stored inputs."""
    name, _, first = module.rpartition(".")
    block, inputs = network.get_submodule(name), {}
    for part in (block, block.get_submodule(first)):
        part.register_forward_pre_hook(lambda part, args: inputs.update({part: args[0].clone()}))
    expected = network(batch)
    block._forward_pre_hooks.clear()
    block.get_submodule(first)._forward_pre_hooks.clear()

    def suffix() -> torch.Tensor:
        y = inputs[block.get_submodule(first)]
        for part in BY_HAND[BY_HAND.index(first) :]:
            y = block.get_submodule(part)(y)
        y += inputs[block]
        return network.forward_head(block.act2(y))

    assert torch.equal(suffix(), expected)
    return lambda: timed(suffix)[1]


def suffix_by_hook(network: nn.Module, module: str, batch: torch.Tensor) -> Callable[[], float]:
    """Return a measurement of the time from the call of a module to the end of a plain pass."""
    entered = []
    network.get_submodule(module).register_forward_pre_hook(lambda *_: entered.append(time.perf_counter()))
    return lambda: (entered.clear(), network(batch), time.perf_counter() - entered[0])[-1]


def first_selected(network: nn.Module, names: tuple[str, ...]) -> str:
    """Return the name of the first module that holds a selected tensor."""
    holders = {name.rpartition(".")[0] for name in names}
    return next(name for name, _ in network.named_modules() if name in holders)


class Work(TorchDispatchMode):
    """Notes floating-point operations and bytes of every operation that is no view."""

    def __init__(self):
        super().__init__()
        self.done: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        count = flop_registry.get(func.overloadpacket)
        operations = count(*args, **(kwargs or {}), out_val=result) if count else 0
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        self.done.append((operations, sum({id(t): t.nbytes for t in tensors}.values())))
        return result


def fastest(function: Callable, repeats: int = 20) -> float:
    """Return the shortest of several times; the first, which warms up, does not count."""
    function()
    return min(timed(function)[1] for _ in range(repeats))


def machine_limit(network: nn.Module, names: tuple[str, ...], batch: torch.Tensor) -> tuple[float, float, str]:
    """Return the seconds that this machine needs at least for a pass and for its suffix, and the rates behind them."""
    square, images, filters = torch.randn(2048, 2048), torch.randn(64, 512, 7, 7), torch.randn(512, 512, 3, 3)
    convolution = fastest(lambda: nn.functional.conv2d(images, filters, padding=1))
    products = 2 * 2048**3 / fastest(lambda: square @ square), 2 * images.numel() * 512 * 9 / convolution
    source, target = torch.randn(2, 2**19)
    rate, traffic = max(products), 2 * source.nbytes / fastest(lambda: target.copy_(source))
    work, start = Work(), []
    module = network.get_submodule(first_selected(network, names))
    hook = module.register_forward_pre_hook(lambda *_: start.append(len(work.done)))
    with work:
        network(batch)
    hook.remove()
    seconds = [max(operations / rate, size / traffic) for operations, size in work.done]
    rates = f"{rate / 1e9:.0f} GFLOP/s, {traffic / 1e9:.0f} GB/s"
    return sum(seconds), sum(seconds[start[0] :]), rates


def suffix_of(network: nn.Module, names: tuple[str, ...], batch: torch.Tensor) -> tuple[Callable[[], float], str]:
    """Return a measurement, without Replay, of the part from the first selected module on, and how it is done."""
    first = first_selected(network, names)
    block, _, part = first.rpartition(".")
    last = list(network.layer4.named_children())[-1] if isinstance(network, ResNet) else ("", None)
    if isinstance(last[1], BasicBlock) and block == f"layer4.{last[0]}" and part in BY_HAND:
        return suffix_by_hand(network, first, batch), f"from {first} on, called by hand on stored inputs"
    return suffix_by_hook(network, first, batch), f"from {first} on, by a hook within a plain pass"


def evaluate_one(network: nn.Module, candidates: Candidates, index: int, batch: torch.Tensor) -> torch.Tensor:
    """Return the result of one candidate, without Replay."""
    candidates.load(network, index)
    return network(batch)


def measure(network, candidates, batch, naive: int, suffix: Callable[[], float]) -> tuple[dict[str, float], bool]:
    """Return the seconds of everything, and whether all results that were computed twice are identical."""
    network(batch)
    full, suffixes, played, single, identical = [], [], [], [], True
    results = Replay(network, candidates)(batch)
    for start in range(0, len(candidates), CHUNK):
        chunk = range(start, min(start + CHUNK, len(candidates)))
        replayed, seconds = zip(*(timed(next, results) for _ in chunk), strict=True)
        played += seconds
        suffixes += [suffix() for _ in chunk]
        full += [timed(network, batch)[1] for _ in range(2)]
        for index, result in zip(chunk[: max(naive - start, 0)], replayed, strict=False):
            alone, seconds = timed(evaluate_one, network, candidates, index, batch)
            single.append(seconds)
            identical = identical and torch.equal(alone.view(torch.int32), result.view(torch.int32))
    medians = {"t_full": statistics.median(full), "t_suffix": statistics.median(suffixes)}
    one_by_one = sum(single) * len(candidates) / naive
    return {**medians, "played": statistics.median(played), "replay": sum(played), "one_by_one": one_by_one}, identical


def print_memory(arguments: argparse.Namespace) -> None:
    """Print the resident memory after building the network, and its peak after evaluating (`VmHWM`)."""
    network, candidates, batch = prepare(arguments)
    reset_peak_memory()
    baseline = peak_memory()
    if arguments.memory == "one":
        evaluate_one(network, candidates, 0, batch)
    else:
        list(Replay(network, candidates)(batch))
    print(baseline, peak_memory())


def peak_of(mode: str) -> tuple[int, int]:
    """Return baseline and peak memory of a fresh process with these arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory", mode]
    baseline, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(baseline), int(peak)


@torch.no_grad()
@command()
def main() -> int:
    """Measure and print; exit code 1 if results differ."""
    arguments = parse()
    if arguments.memory:
        print_memory(arguments)
        return 0
    network, candidates, batch = prepare(arguments)
    count, naive = len(candidates), min(arguments.naive, len(candidates))
    whole, rest, rates = machine_limit(network, candidates.layout.names, batch)
    suffix, how = suffix_of(network, candidates.layout.names, batch)
    seconds, identical = measure(network, candidates, batch, naive, suffix)
    limit = count * seconds["t_full"] / (seconds["t_full"] + (count - 1) * seconds["t_suffix"])
    ratio = seconds["one_by_one"] / seconds["replay"]
    (base_one, one), (base_all, peak) = peak_of("one"), peak_of("replay")
    print(f"{arguments.network} {arguments.size} px, {arguments.select}, K = {count}, batch of {arguments.batch}")
    for label, value, note in [
        ("t_full", f"{seconds['t_full'] * 1e3:.2f} ms", "one plain pass, median"),
        ("t_suffix", f"{seconds['t_suffix'] * 1e3:.2f} ms", f"{how}, median"),
        ("played pass", f"{seconds['played'] * 1e3:.2f} ms", "one candidate with Replay, median"),
        ("one by one", f"{seconds['one_by_one']:.2f} s", f"K candidates, scaled from {naive}"),
        ("Replay", f"{seconds['replay']:.2f} s", "K candidates"),
        ("ratio", f"{ratio:.2f}", "one by one / Replay"),
        ("limit", f"{limit:.2f}", "K t_full / (t_full + (K - 1) t_suffix)"),
        ("share of limit", f"{ratio / limit:.1%}", ""),
        ("machine", f"{whole + (count - 1) * rest:.2f} s", f"least for K candidates at {rates}"),
        ("ratio there", f"{count * whole / (whole + (count - 1) * rest):.2f}", "if whole passes ran at these rates"),
        ("share of it", f"{(whole + (count - 1) * rest) / seconds['replay']:.1%}", "of Replay's time"),
        ("identical", str(identical), f"{naive} results, bit by bit"),
        ("peak memory", f"{peak / one:.3f}", f"{peak / 2**20:.0f} MiB for K with Replay, {one / 2**20:.0f} for one"),
        ("growth", f"{(peak - base_all) / (one - base_one):.3f}", "the same, less the memory before evaluating"),
    ]:
        print(f"{label:<15}{value:>12}  {note}")
    return 0 if identical else 1


if __name__ == "__main__":
    raise SystemExit(main())
