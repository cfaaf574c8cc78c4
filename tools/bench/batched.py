"""Candidates one by one against all at once, over what differs between them: ResNet-18 from `layer4.1.bn1` on, 224 px.

Each candidate has other weights in the last two normalisation layers. All at once is `torch.func.vmap` over
`functional_call`; the convolution between the two, whose weights all share, is batched by it.

    python tools/bench/batched.py
"""

import argparse
import statistics
import time

import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command

SELECTED = ("block.bn1.weight", "block.bn1.bias", "block.bn2.weight", "block.bn2.bias")


class Suffix(nn.Module):
    """What is left to do behind the first convolution of the last block."""

    def __init__(self):
        super().__init__()
        network = timm.create_model("resnet18").eval()
        self.block, self.pool, self.head = network.layer4[1], network.global_pool, network.fc

    def forward(self, convolved: Tensor, shortcut: Tensor) -> Tensor:
        """Return the logits of the block's input `(S, 512, 7, 7)` and of what its first convolution made of it."""
        inner = self.block.act1(self.block.bn1(convolved))
        return self.head(self.pool(self.block.act2(self.block.bn2(self.block.conv2(inner)) + shortcut)))


def seconds(function) -> tuple[float, Tensor]:
    """Return the seconds of a call and what it returns."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


@torch.no_grad()
def compared(suffix: nn.Module, candidates: dict[str, Tensor], inputs: Tensor, turns: int) -> tuple[float, ...]:
    """Return the seconds of all candidates one by one and at once; the share of outputs that differ; by how much."""

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(suffix, weights, tuple(inputs))

    def alone() -> Tensor:
        rows = zip(*candidates.values(), strict=True)
        return torch.stack([outputs(dict(zip(candidates, row, strict=True))) for row in rows])

    taken = [(*seconds(alone), *seconds(lambda: vmap(outputs)(candidates))) for _ in range(turns + 1)]
    one_by_one, one, at_once, other = zip(*taken[1:], strict=True)  # the first turn warmed up
    differ, largest = (one[0] != other[0]).float().mean().item(), (one[0] - other[0]).abs().max().item()
    return statistics.median(one_by_one), statistics.median(at_once), differ, largest


@command()
def main() -> None:
    """Print a row for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    suffix, count = Suffix(), arguments.candidates
    own = dict(suffix.named_parameters())
    candidates = {name: own[name].detach() + 0.1 * torch.randn(count, *own[name].shape) for name in SELECTED}
    print(environment(torch.device("cpu")))
    print("| images | one by one, ms a candidate | vmap | outputs that differ | by at most |")
    print("|---|---|---|---|---|")
    for images in arguments.images:
        inputs = torch.randn(2, images, 512, 7, 7)
        one_by_one, at_once, differ, largest = compared(suffix, candidates, inputs, arguments.turns)
        each = 1e3 / count
        print(f"| {images} | {one_by_one * each:.2f} | {at_once * each:.2f} | {differ:.0%} | {largest:.0e} |")


if __name__ == "__main__":
    raise SystemExit(main())
