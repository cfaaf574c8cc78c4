"""mmengine's Runner against a bare loop: seconds per step of the denoiser's training, same rows, same weights after it.

The bare loop has what the training needs (batches, loss, AdamW, cosine, moving average) and nothing else. Both take
turns, so that other work on the machine meets both; the times are medians over the turns, and hold what the Runner
takes to start and to write its state and logs.

    python tools/bench/runner.py
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pdiff.engine.objectives import Denoising
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.training import Batches, train
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.weights.layout import Layout

POPULATION = 290


def objective(preset: str, size: int, device: str) -> tuple[Denoising, int]:
    """Return the denoiser's objective for vectors of `size` parameters, with the initial weights of a fit, and L."""
    engine = ParameterDiffusion({"preset": preset}, device=device)
    engine.build(Layout.of({"vector": torch.empty(size)}))
    return Denoising(engine.denoiser, engine.schedule, seed=0), engine.autoencoder.latent


def bare_loop(model: nn.Module, rows: torch.Tensor, settings: dict) -> None:
    """Train `model` as `pdiff.engine.training.train` does, without mmengine."""
    steps, ema = settings["steps"], settings["ema"]
    model.train()
    weights, batches = list(model.parameters()), Batches(rows, settings["batch_size"], steps, seed=0)
    optimizer = torch.optim.AdamW(weights, lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    average = None
    for step in range(steps):
        loss = model(**batches[step])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        if not ema:
            continue
        if average is None:
            average = [weight.detach().clone() for weight in weights]
        else:
            get_ema_multi_avg_fn(ema)(average, [weight.detach() for weight in weights], None)
    with torch.no_grad():
        for weight, mean in zip(weights, average or [], strict=bool(ema)):
            weight.copy_(mean)


def seconds(function, *arguments) -> float:
    """Return the seconds of a call, a GPU's work included."""
    start = time.perf_counter()
    function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@command()
def main() -> int:
    """Print both and their ratio; exit code 1 if the weights differ by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast", help="whose denoiser (default: %(default)s)")
    parser.add_argument("--size", type=int, default=2048, help="P (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="per turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", default="none", help="backend of torch.compile for the Runner's training")
    arguments = parser.parse_args()
    first, latent = objective(arguments.preset, arguments.size, arguments.device)
    config = ParameterDiffusion({"preset": arguments.preset}).config
    settings = {**config["denoiser_training"], "steps": arguments.steps, "compile": arguments.compile}
    rows = torch.randn(POPULATION, latent, generator=torch.Generator().manual_seed(0)).to(arguments.device)
    times: dict[str, list[float]] = {"bare": [], "Runner": []}
    for _ in range(arguments.turns + 1):
        bare, runner = (objective(arguments.preset, arguments.size, arguments.device)[0] for _ in range(2))
        bare.load_state_dict(first.state_dict())
        runner.load_state_dict(first.state_dict())
        times["bare"].append(seconds(bare_loop, bare, rows, settings) / arguments.steps)
        mmengine = seconds(lambda model=runner: train(model, rows, "denoiser", None, 0, "", **settings))
        times["Runner"].append(mmengine / arguments.steps)
    difference = max((a - b).abs().max().item() for a, b in zip(bare.parameters(), runner.parameters(), strict=True))
    # The first turn warmed up.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(environment(torch.device(arguments.device)))
    for name, value in medians.items():
        print(f"{name:<24}{value * 1e3:>10.3f} ms a step")
    print(f"{'Runner over bare':<24}{medians['Runner'] / medians['bare'] - 1:>10.1%}")
    print(f"{'largest difference':<24}{difference:>10.1e} between the weights after {arguments.steps} steps")
    return 0 if difference < 1e-4 else 1


if __name__ == "__main__":
    raise SystemExit(main())
