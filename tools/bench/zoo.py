"""Take a made-up zoo of many small networks in, filter and fit it: seconds and peak memory of each stage, as a table.

    python tools/bench/zoo.py runs/zoo --rows 100000

The zoo is one `.npy` matrix of a perceptron's 5,035 parameters for digits, with a table of columns, as the Small CNN
Zoo has it: several trainings, of which some rows are filtered out. The memory is that of one process for all stages,
with one thread: the peak that is resident (`resident`), pages of mapped files among it, and what of it is the process's
own (`own`), measured every tenth of a second.
"""

import argparse
import threading
from pathlib import Path

import numpy as np
import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.cost import kilobytes
from pdiff.runtime.errors import command
from pdiff.stages.pipeline import run_pipeline

WIDTH, SIZE = 67, 64 * 67 + 67 + 67 * 10 + 10
STEPS, MODES, PART = 10, 64, 5000  # rows of a training; directions that they lie in; rows written at once
STAGES = ("collect", "fit")


def write_zoo(folder: Path, rows: int) -> None:
    """Write matrix and table, a part at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(0)
    directions = torch.randn(MODES, SIZE, generator=rng) / torch.arange(1, MODES + 1)[:, None]
    matrix = np.lib.format.open_memmap(folder / "weights.npy", "w+", np.float32, (rows, SIZE))
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        scores = torch.randn(count, MODES, generator=rng)
        part = (scores @ directions + 0.05 * torch.randn(count, SIZE, generator=rng)) / 8
        matrix[start : start + count] = part.numpy()
    matrix.flush()
    with open(folder / "metrics.csv", "w") as file:
        file.write("step,accuracy,run\n")
        file.writelines(f"{row % STEPS},{row % 97 / 97:.4f},run{row // STEPS}\n" for row in range(rows))


class Watch(threading.Thread):
    """Keeps the largest memory that is the process's own, in bytes, until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopped, self.own = threading.Event(), 0

    def run(self) -> None:
        """Look every tenth of a second."""
        while not self.stopped.wait(0.1):
            self.own = max(self.own, 1024 * kilobytes(Path("/proc/self/status"), "RssAnon"))


def measure(folder: Path, name: str, **checkpoints) -> None:
    """Run collect and fit, and print what they took."""
    config = resolve({
        "plugin": "classification", "select": "all", "device": "cpu",
        "task": {"network": {"type": "mlp", "hidden": [WIDTH]}, "data": {"type": "digits", "size": 8}},
        "checkpoints": {"files": str(folder / "weights.npy"), **checkpoints},
    })  # fmt: skip
    directory, watch = RunDirectory(folder / name), Watch()
    watch.start()
    run_pipeline(config, directory, list(STAGES), gates=False)  # these networks do nothing
    watch.stopped.set()
    records = directory.records()
    for stage in STAGES:
        seconds, peak = (records[stage][key] for key in ("seconds", "peak_memory_bytes"))
        print(f"| {name} | {stage} | {seconds:.0f} s | {peak / 1e9:.2f} GB | {watch.own / 1e9:.2f} GB |", flush=True)


@command()
def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where zoo and runs go; nothing is deleted")
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not (arguments.folder / "metrics.csv").exists():
        write_zoo(arguments.folder, arguments.rows)
    print("| zoo | stage | time | resident | own, so far |\n|---|---|---|---|---|")
    zoo = {"type": "matrix", "table": "metrics.csv"}
    measure(arguments.folder, "whole", format=zoo, lineage="run")
    rows = {"rows": "step > 1 & accuracy > 0.1", "lineage": "run"}
    measure(arguments.folder, "filtered", format=zoo, **rows)
    measure(arguments.folder, "conditional", format=zoo, **rows, conditions=["accuracy"])


if __name__ == "__main__":
    raise SystemExit(main())
