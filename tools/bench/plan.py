"""Compare what a plan predicts with what a finished run of the same config used.

    python tools/bench/plan.py runs/demo
"""

import argparse
from pathlib import Path

from pdiff.plan.limits import limits_now
from pdiff.plan.prediction import duration, plan_lines, size
from pdiff.plan.rehearsal import make_plan, stored
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.runtime.seeding import resolve_device


def row(name: str, predicted: float | None, used: float, show) -> str:
    """Return a line of the table."""
    if predicted is None:
        return f"| {name} | not known | {show(used)} | |"
    return f"| {name} | {show(predicted)} | {show(used)} | {predicted / used:.2f} |"


@command
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    directory = RunDirectory(parser.parse_args().run)
    config = resolve(directory.config())
    plan = make_plan(config, directory.path, limits_now(directory.path, config.device))
    used = directory.records()
    print(environment(resolve_device(config.device)))
    print(*plan_lines(plan), sep="\n")
    print("\n| | predicted | used | ratio |\n|---|---|---|---|")
    for stage in plan.stages:
        print(row(f"{stage.name}, time", stage.seconds, used[stage.name]["seconds"], duration))
    for stage in plan.stages:
        print(row(f"{stage.name}, memory", stage.peak_memory_bytes, used[stage.name]["peak_memory_bytes"], size))
    print(row("directory", plan.disk_bytes, stored(directory.path), size))


if __name__ == "__main__":
    raise SystemExit(main())
