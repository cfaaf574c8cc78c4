"""Time the evaluation of many candidates by two processes with a core each against one process on one core.

Works on a finished run. Every process has one thread and stays on one core. The fastest of several runs counts; where
other programs use the cores too, the processors' own time says what they would take alone.

    python tools/bench/ranks.py runs/demo
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime import processes
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.stages.evaluate import evaluate_together


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--candidates", type=int, default=200, help="of the generated")
    parser.add_argument("--split", default="test")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # this is one of the measured processes
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    """Evaluate as one of the processes; the first writes seconds and a hash of the results."""
    processes.join("pytorch")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[processes.rank() % len(cores)]})
    torch.set_num_threads(1)
    directory = RunDirectory(arguments.run)
    run = Run(resolve({**directory.config(), "device": "cpu"}), directory)
    candidates = run.candidates(run.generated[: arguments.candidates])
    evaluate_together(run, "warm-up", candidates.take(slice(2 * processes.size())), arguments.split)
    runs = []
    for _ in range(arguments.repeats):
        processes.gather(None)
        wall, own = time.perf_counter(), time.process_time()
        results = evaluate_together(run, "generated", candidates, arguments.split)
        runs.append((time.perf_counter() - wall, max(processes.gather(time.process_time() - own))))
    digest = hashlib.sha256()
    for result in results:
        scores = b"" if result.scores is None else result.scores.numpy().tobytes()
        figures = repr((result.metric, dict(result.details))).encode()
        digest.update(figures + result.signature.numpy().tobytes() + scores)
    if processes.is_main():
        wall, own = (min(column) for column in zip(*runs, strict=True))
        found = {"seconds": wall, "processor": own, "digest": digest.hexdigest(), "candidates": len(results)}
        arguments.result.write_text(json.dumps(found))


def measured_by(processes: int, folder: Path) -> dict:
    """Return what `measure` finds with so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *sys.argv]
    result = folder / f"{processes}.json"
    subprocess.run([*command, "--result", str(result)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(result.read_text())


@command()
def main() -> int:
    """Measure and print; exit code 1 if results differ."""
    arguments = parse()
    if arguments.result:
        measure(arguments)
        return 0
    RunDirectory(arguments.run).require("generate")
    with tempfile.TemporaryDirectory() as folder:
        one, two = (measured_by(processes, Path(folder)) for processes in (1, 2))
    print(environment(torch.device("cpu")))
    print(f"{one['candidates']} candidates of {arguments.run} on {arguments.split}")
    for name, label in (("seconds", "seconds"), ("processor", "seconds of the busiest processor")):
        print(f"| {label} | one process {one[name]:.2f} | two {two[name]:.2f} | ratio {one[name] / two[name]:.2f} |")
    print(f"| identical results | {one['digest'] == two['digest']} |")
    return 0 if one["digest"] == two["digest"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
