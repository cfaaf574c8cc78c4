"""Measure on a GPU, in under ten minutes, all that needs one, and write docs/gpu.md.

    python tools/bench/gpu.py

Each part is a process of its own with a time limit; one that fails, or is stopped, is a row that says so. Where there
is no GPU the page says that nothing was run, and what would be. `--try FILE` runs all parts at tiny sizes on the CPU
and writes the page to a file: that the code runs, and nothing else.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pdiff.engine.objectives import Reconstruction
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.scaling import Scaled
from pdiff.run.config import load_config
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.runtime.exact import exact
from pdiff.runtime.storage import write_text
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Replay
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population
from pdiff.weights.select import select

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).parent / "tiny"
TITLES = ("what", "CPU", "GPU", "remark")
Row = tuple[str, str, str, str]  # what, CPU, GPU, remark
COMMAND = "python tools/bench/gpu.py"


@dataclass(frozen=True)
class Sizes:
    """How large what is measured is.

    Attributes:
        device: that is compared with the CPU.
        tests: files or folders of the tests that are run.
        population: vectors, and values of each, for the presets.
        steps: of a short and of a long training of each preset, whose difference is timed.
        sampling: steps of the sampler.
        presets: changes of each preset.
        network: timm's name, side of its images, images, candidates, and how many of these one by one.
        zoo, detectors: changes of the two configs of many networks.
        lengths: P of the vectors on which steps of the preset `tokens` are taken.
        compiled: changes of the training that are tried.
        demo: a config, or a plugin whose default is taken.
        processes: how many share a run.
    """

    device: str
    tests: tuple[str, ...]
    population: tuple[int, int]
    steps: Mapping[str, tuple[int, int]]
    sampling: int
    presets: Mapping[str, Mapping[str, Any]]
    network: tuple[str, int, int, int, int]
    zoo: Mapping[str, Any]
    detectors: Mapping[str, Any]
    lengths: tuple[int, ...]
    compiled: tuple[Mapping[str, Any], ...]
    demo: str
    processes: int


FULL = Sizes(
    device="cuda",
    tests=("tests",),
    population=(300, 2048),
    steps={"fast": (20, 520), "paper": (2, 12), "tokens": (5, 55)},
    sampling=20,
    presets={"fast": {}, "paper": {}, "tokens": {}},
    network=("resnet18", 224, 64, 200, 20),
    zoo={"collect.seeds": 256, "collect.together": 256},
    detectors={
        "task.model.options.train_cfg.max_iters": 60,
        "collect.conditions.subsets": 60,
        "collect.together": 30,
        "collect.networks.steps": 20,
    },
    lengths=(11_689_512, 200_000_000),
    compiled=({}, {"amp": True}, {"compile": "inductor"}, {"compile": "cudagraphs"}),
    demo="classification",
    processes=2,
)
TRY = Sizes(
    device="cpu",
    tests=("tests/engine/test_training.py",),
    population=(8, 64),
    steps={"fast": (1, 3), "paper": (1, 3), "tokens": (1, 3)},
    sampling=3,
    presets=yaml.safe_load((ROOT / "tools" / "bench" / "tiny_engines.yaml").read_text()),
    network=("test_resnet", 32, 4, 6, 3),
    zoo={"collect.seeds": 8, "collect.together": 4, "collect.networks.steps": 24, "collect.networks.snapshots": 2},
    detectors={
        "task.model.options.train_cfg.max_iters": 2,
        "task.data.scenes": {"train": 40, "select": 40, "test": 40, "size": 64},
        "collect.conditions.subsets": 12,
        "collect.together": 6,
        "collect.networks.steps": 2,
    },
    lengths=(2_048,),
    compiled=({}, {"amp": True}, {"compile": "eager"}),
    demo=str(TINY / "classification.yaml"),
    processes=2,
)


def devices(sizes: Sizes) -> list[str]:
    """Return the devices that are compared, first that which only this page is about."""
    return list(dict.fromkeys((sizes.device, "cpu")))


def waited(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(device: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds until the device is done."""
    waited(device)
    start = time.perf_counter()
    found = work()
    waited(device)
    return found, time.perf_counter() - start


def in_words(seconds: float) -> str:
    """Return seconds as a person reads them."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def tried(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows, and one that says so where they end in an error."""
    try:
        yield from rows
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        yield name, "", "failed", f"{type(error).__name__}: {lines[0]}"


def row(what: str, device: str, cell: str, remark: str = "") -> Row:
    """Return a row with what was measured on one device; `merged` brings it together with that of the other."""
    return (what, cell, "", remark) if device == "cpu" else (what, "", cell, remark)


def merged(rows: Sequence[Row]) -> list[Row]:
    """Return rows in which those of two devices that tell of the same are one."""
    found: dict[object, Row] = {}
    for number, new in enumerate(rows):
        key = new[0] or number
        old = found.get(key, ("",) * len(new))
        taken = any(a and b for a, b in zip(old[1:3], new[1:3], strict=True))
        found[(key, number) if taken else key] = new if taken else tuple(a or b for a, b in zip(old, new, strict=True))
    return list(found.values())


def made_up(rows: int, size: int) -> tuple[Tensor, Layout]:
    """Return vectors `(rows, size)` along a few directions, with a little noise, and their layout of two tensors."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.empty(rows, size)
    average, direction = torch.randn(size, generator=rng), torch.randn(size, generator=rng)
    for row in range(rows):
        noise = torch.randn(size, generator=rng)
        vectors[row] = average + 0.1 * torch.randn((), generator=rng) * direction + 0.01 * noise
    small = min(512, size // 2)
    return vectors, Layout.of({"large": torch.empty(size - small, device="meta"), "small": torch.empty(small)})


def tests(sizes: Sizes) -> Iterator[Row]:
    """Run the tests that are marked `cuda`."""
    line = [sys.executable, "-m", "pytest", "-v", "-m", "cuda", "-p", "no:cacheprovider", *sizes.tests]
    last = ""
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for told in map(str.rstrip, running.stdout):
            last = told or last
            name, _, outcome = told.partition(" ")
            word = outcome.partition(" ")[0].lower()
            if "::" in name and word in ("passed", "failed", "error", "skipped"):
                yield name, "", word, ""
    yield "tests marked `cuda`", "", last.strip("= ") or f"pytest ended with {running.returncode}", ""


def engine_of(sizes: Sizes, preset: str, device: str, steps: int, changes: Mapping[str, Any]) -> ParameterDiffusion:
    """Return an engine of a preset that is fitted in so many steps of each training."""
    training = {"steps": steps, **changes}
    config = {"preset": preset, **sizes.presets[preset], "generator_training": training}
    if preset != "fast":  # whose codec is fitted in closed form
        config["autoencoder_training"] = training
    engine = ParameterDiffusion(config, device=device)
    return engine.fit(*made_up(*sizes.population)) or engine


def step_of(sizes: Sizes, preset: str, device: str, changes: Mapping[str, Any]) -> float:
    """Return the seconds that a step more takes, of each training of a preset, beside all that is done once."""
    short, long = sizes.steps[preset]
    engine_of(sizes, preset, device, 1, changes)
    seconds = [timed(device, lambda n=n: engine_of(sizes, preset, device, n, changes))[1] for n in (short, long)]
    return max(seconds[1] - seconds[0], 0.0) / (long - short)


def presets(sizes: Sizes) -> Iterator[Row]:
    """Compare fitting, drawing and the codec of each preset on the two devices."""
    for device, preset in itertools.product(devices(sizes), sizes.steps):
        yield from tried(preset, preset_rows(sizes, preset, device))


def preset_rows(sizes: Sizes, preset: str, device: str) -> Iterator[Row]:
    """Yield the rows of a preset on a device."""
    (rows, size), sampler = sizes.population, {"type": "DDIM", "steps": sizes.sampling}
    step = in_words(step_of(sizes, preset, device, {}))
    yield row(f"{preset}: a training step", device, step, f"of each training; N = {rows}, P = {size:,}")
    engine = engine_of(sizes, preset, device, sizes.steps[preset][1], {})
    engine.sample(50, sampler=sampler)
    drawn, seconds = timed(device, partial(engine.sample, 50, sampler=sampler))
    yield row(f"{preset}: 50 samples", device, in_words(seconds), f"DDIM, {sizes.sampling} steps")
    spread = f"{engine.spread(drawn):.3f}"
    yield row(f"{preset}: spread of the samples", device, spread, "over that of the fitted; other noise on each device")
    if device == sizes.device:
        far = distance_of_codecs(sizes, engine)
        yield f"{preset}: one engine's decoded vectors, apart", "", far, "at most, over the vectors' spread"


def distance_of_codecs(sizes: Sizes, engine: ParameterDiffusion) -> str:
    """Return how far apart, at most, one engine's decoded vectors lie on the two devices, over their spread."""
    vectors, _ = made_up(*sizes.population)
    with tempfile.TemporaryDirectory() as folder:
        engine.save(Path(folder))
        other = ParameterDiffusion.load(Path(folder), "cpu")
    ours, theirs = (one.decode(one.encode(vectors)) for one in (engine, other))
    return f"{float((ours - theirs).abs().max() / vectors.std(0).mean()):.1e}"


def equal_bits(one: Tensor, other: Tensor) -> bool:
    """Say whether two float32 tensors are equal bit by bit."""
    return torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))


@torch.no_grad()
def replayed(
    name: str, network: nn.Module, names: Sequence[str], batch: Tensor, count: int, alone: int
) -> Iterator[Row]:
    """Compare the evaluation of many candidates with replay to that of each alone, bit by bit, where the batch is."""
    device, state = str(batch.device.type), network.state_dict()
    layout = Layout.of({key: tensor.cpu() for key, tensor in state.items()}, names)
    noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
    vectors = layout.flatten({key: tensor.cpu() for key, tensor in state.items()}) + 0.1 * noise
    candidates = Candidates(vectors.to(batch.device), layout, LoadParams().load_params)

    def one(index: int) -> Tensor:
        candidates.load(network, index)
        return network(batch)

    with exact(batch.device):
        network(batch)
        results, seconds = timed(device, lambda: list(Replay(network, candidates)(batch)))
        single, each = timed(device, lambda: [one(index).clone() for index in range(alone)])
    equal = sum(map(equal_bits, results, single))
    remark = f"identical {equal} of {alone}; one by one {in_words(each / alone)} a candidate"
    yield row(f"{name}: a candidate of {count} with replay", device, in_words(seconds / count), remark)


def replay(sizes: Sizes) -> Iterator[Row]:
    """Compare replay with evaluating one by one, on a network of timm's and behind a transposed convolution."""
    import timm

    name, side, images, count, alone = sizes.network
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    batch, names = torch.randn(images, 3, side, side), select(network, "last_norms(2)")
    upward = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ConvTranspose2d(8, 8, 4, 2), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    chosen = [key for key in upward.state_dict() if key.startswith("3.")]
    for label, model, taken in ((name, network, names), ("ConvTranspose2d", upward.eval(), chosen)):
        for device in devices(sizes):
            given = (label, model.to(device), taken, batch.to(device), count if device != "cpu" else alone, alone)
            yield from tried(label, replayed(*given))


def run_of(folder: Path, config: Any, stages: Sequence[str]) -> dict[str, float]:
    """Run stages of a config in a folder, and return the seconds of each."""
    with redirect_stdout(sys.stderr):
        run_pipeline(config, RunDirectory(folder), stages, gates=False)
    return {stage: record["seconds"] for stage, record in RunDirectory(folder).records().items()}


def loss_of(folder: Path) -> str:
    """Return the mean training loss of a collection's last twenty snapshots, in words."""
    found = [record["loss"] for record in Population.open(RunDirectory(folder).folder("collect")).provenance]
    return f"{sum(found[-20:]) / len(found[-20:]):.4f}"


def many(sizes: Sizes) -> Iterator[Row]:
    """Train many networks at once: a zoo of classifiers, and detectors in lockstep."""
    configs = {"classification/zoo_digits": sizes.zoo, "detection/subsets_digits": sizes.detectors}
    for device, (name, changes) in itertools.product(devices(sizes), configs.items()):
        yield from tried(name, many_rows(name, changes, device))


def many_rows(name: str, changes: Mapping[str, Any], device: str) -> Iterator[Row]:
    """Yield the rows of a collection of many networks on a device."""
    config = load_config(None, str(ROOT / "configs" / f"{name}.yaml"), {"device": device}, changes)
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_of(Path(folder) / "run", config, ["collect"])["collect"]
        words = ", ".join(f"{key}={value}" for key, value in changes.items())
        yield row(f"{name}: collect", device, in_words(seconds), words)
        yield row(f"{name}: mean loss of the last", device, loss_of(Path(folder) / "run"))


def lengths(sizes: Sizes) -> Iterator[Row]:
    """Take steps of the codec of the preset `tokens` on longer and longer vectors."""
    for size in sizes.lengths:
        yield from tried(f"tokens, P = {size:,}", steps_at(size, sizes.device))


def steps_at(size: int, device: str, rows: int = 4, steps: int = 6) -> Iterator[Row]:
    """Tell the seconds of a step of the codec of `tokens` on vectors of a length, and the GPU memory it takes.

    The step is on 8 rows, as in the preset, which are those of 4 vectors, twice.
    """
    vectors, layout = made_up(rows, size)
    training = {"steps": 2, "batch_size": 8}
    engine = ParameterDiffusion(
        {"preset": "tokens", "autoencoder_training": training, "generator_training": {"steps": 2}}, device=device
    )
    _, fit = timed(device, lambda: engine.fit(vectors, layout))
    yield row(f"tokens, P = {size:,}: a fit of {rows} vectors", device, in_words(fit), "two steps of each training")
    part, found = engine.autoencoder.trainable(Scaled(vectors.to(device), engine.scaling))
    objective = Reconstruction(part, engine.autoencoder.vector_noise, engine.autoencoder.latent_noise, seed=0)
    trained, seconds = list(part.parameters()), []
    optimizer, batch = torch.optim.AdamW(trained), torch.cat([found[:rows], found[:rows]])
    for step in range(steps):

        def move(step: int = step) -> None:
            optimizer.zero_grad()
            objective(batch, step)["loss"].backward()
            optimizer.step()

        seconds.append(timed(device, move)[1])
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of GPU memory" if device != "cpu" else ""
    yield row(f"tokens, P = {size:,}: a step of the codec", device, in_words(min(seconds)), peak)


def arithmetic(sizes: Sizes) -> Iterator[Row]:
    """Train with bfloat16 and with what `torch.compile` offers, beside plain training."""
    for preset, changes in itertools.product(("fast", "tokens"), sizes.compiled):
        name = f"{preset}: a training step, {', '.join(f'{k}={v}' for k, v in changes.items()) or 'plain'}"
        yield from tried(name, arithmetic_row(sizes, name, preset, changes))


def arithmetic_row(sizes: Sizes, name: str, preset: str, changes: Mapping[str, Any]) -> Iterator[Row]:
    """Tell the seconds of a step in some arithmetic, and the loss of the last one."""
    seconds = in_words(step_of(sizes, preset, sizes.device, changes))
    loss = engine_of(sizes, preset, sizes.device, sizes.steps[preset][1], changes).history["denoiser"][-1]
    yield row(name, sizes.device, seconds, f"loss of the denoiser's last step {loss:.4f}")


def demo(sizes: Sizes) -> Iterator[Row]:
    """Run all stages of the demo on both devices, and tell what an evaluation takes."""
    plugin, path = (None, sizes.demo) if sizes.demo.endswith(".yaml") else (sizes.demo, None)
    for device in devices(sizes):
        with tempfile.TemporaryDirectory() as folder:
            seconds = run_of(Path(folder) / "run", load_config(plugin, path, {"device": device}, {}), ORDER)
            files = RunDirectory(Path(folder) / "run").folder("evaluate").glob("*.jsonl")
            count = sum(len(file.read_text().splitlines()) for file in files)
        for stage in ORDER:
            yield row(f"demo: {stage}", device, in_words(seconds[stage]))
        yield row("demo: a candidate on a split", device, in_words(seconds["evaluate"] / count), f"{count:,} of them")


def processes(sizes: Sizes) -> Iterator[Row]:
    """Run a tiny config by several processes, each with a GPU of its own, beside one."""
    there = torch.cuda.device_count() if sizes.device == "cuda" else sizes.processes
    if there < sizes.processes:
        yield f"{sizes.processes} processes", "", "not run", f"GPUs: {there}"
        return
    tool, config = str(ROOT / "tools" / "run.py"), str(TINY / "classification.yaml")
    for number, words in ((1, "one process"), (sizes.processes, f"{sizes.processes} processes")):
        launched = ["-m", "torch.distributed.run", "--nproc-per-node", str(number), tool, "--launcher", "pytorch"]
        with tempfile.TemporaryDirectory() as folder:
            own = ["--config", config, "--work-dir", folder, "--device", sizes.device, "--no-gates", "--overwrite"]
            line = [sys.executable, *(launched if number > 1 else [tool]), *own]
            done = subprocess.run(line, check=False, capture_output=True, text=True)
            if done.returncode:
                yield words, "", "failed", next(iter(done.stderr.strip().splitlines()[-1:]), "")
                continue
            seconds = sum(record["seconds"] for record in RunDirectory(Path(folder)).records().values())
        yield f"{words}: all stages of a tiny run", "", in_words(seconds), f"on {sizes.device}"


@dataclass(frozen=True)
class Part:
    """One part of the page.

    Attributes:
        title: its heading.
        measure: yields its rows.
        limit: seconds after which it is stopped.
    """

    title: str
    measure: Callable[[Sizes], Iterator[Row]]
    limit: int


PARTS = {
    "tests": Part("Tests that need a GPU", tests, 100),
    "presets": Part("Fitting and drawing", presets, 60),
    "replay": Part("Replay against one by one", replay, 40),
    "many": Part("Many networks trained at once", many, 80),
    "lengths": Part("Steps on long vectors", lengths, 90),
    "arithmetic": Part("bfloat16 and torch.compile", arithmetic, 60),
    "demo": Part("The demo", demo, 130),
    "processes": Part("Two processes", processes, 30),
}


def measured(name: str, trying: bool, limit: float | None = None) -> list[Row]:
    """Return the rows of a part, measured in a process of its own; the last says so where it failed or was stopped."""
    with tempfile.TemporaryDirectory() as folder:
        file, limit = Path(folder) / "rows", limit or PARTS[name].limit * (5 if trying else 1)
        line = [sys.executable, __file__, "--part", name, "--rows", str(file), *(["--try", "-"] if trying else [])]
        running = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            *_, last = running.communicate(timeout=limit)[1].strip().splitlines() or [""]
            ended = [("", "", "failed", last)] if running.returncode else []
        except subprocess.TimeoutExpired:
            stop(running)
            ended = [("", "", "stopped", f"after {limit:g} s, its limit")]
        rows = [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    return [*merged(rows), *ended]


def stop(running: subprocess.Popen) -> None:
    """End a process, and those that it has started."""
    for word, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(running.pid, word)
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=seconds)
            return


def write_rows(name: str, sizes: Sizes, file: Path) -> None:
    """Measure a part, and write each row to a file as soon as it is there."""
    with open(file, "a", buffering=1) as rows:
        for measured_row in PARTS[name].measure(sizes):
            rows.write(json.dumps(measured_row) + "\n")


def page(found: Mapping[str, Sequence[Row]], told: str) -> str:
    """Return the page: what it is of, and the table of each part."""
    lines = ["# On a GPU", "", told, "", "```sh", COMMAND, "```", ""]
    for name, rows in found.items():
        lines += [f"## {PARTS[name].title}", f"`--only {name}`; at most {PARTS[name].limit} s.", ""]
        lines += [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def not_run() -> str:
    """Return the page of a machine without a GPU."""
    told = "Not run: no GPU was at hand. On a machine with one, this command measures these parts and writes this page:"
    lines = ["# On a GPU", "", told, "", "```sh", COMMAND, "```", ""]
    lines += ["| part, for `--only` | what | seconds at most |", "|---|---|---|"]
    lines += [f"| {name} | {first_line(part)} | {part.limit} |" for name, part in PARTS.items()]
    lines += ["", "That its code runs, at tiny sizes on a CPU:", "", "```sh", f"{COMMAND} --try tried.md", "```", ""]
    return "\n".join(lines)


def first_line(part: Part) -> str:
    """Return what a part does, by the first line of its docstring."""
    return (part.measure.__doc__ or "").splitlines()[0].rstrip(".")


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="parts (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "gpu.md", help="the page")
    parser.add_argument("--try", dest="tried", metavar="FILE", help="tiny sizes on the CPU; the page goes to this file")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # this is one of the measured processes
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        write_rows(arguments.part, TRY if arguments.tried else FULL, arguments.rows)
        return 0
    if not arguments.tried and not torch.cuda.is_available():
        write_text(arguments.output, not_run())
        print(f"no GPU: {arguments.output} says that nothing was run")
        return 0
    machine = environment(torch.device("cpu" if arguments.tried else "cuda"))
    where = "At tiny sizes on the CPU: that the code runs, no measurement." if arguments.tried else machine["device"]
    versions = f"{machine['processor']}; torch {machine['packages']['torch']}; {time.strftime('%Y-%m-%d')}."
    output, found = Path(arguments.tried or arguments.output), {}
    for name in arguments.only:
        found[name] = measured(name, bool(arguments.tried))
        print(*(" | ".join(row) for row in found[name]), sep="\n", flush=True)
        write_text(output, page(found, f"{where.rstrip('.')}; {versions}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
