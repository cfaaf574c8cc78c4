"""The plan of a run on the terminal."""

from pathlib import Path

from mmengine.config import Config

from pdiff.plan.limits import check_plan, limits_now
from pdiff.plan.prediction import plan_lines
from pdiff.plan.rehearsal import make_plan


def show_plan(config: Config, work_dir: Path) -> None:
    """Print what a run would cost, as comments, so that what stands above them stays a config.

    Raises:
        PdiffError: the run could not begin, or does not fit into the memory or onto the disk that are free.
    """
    limits = limits_now(work_dir, config.device)
    plan = make_plan(config, work_dir, limits)
    for line in plan_lines(plan):
        print(f"# {line}")
    check_plan(plan, limits, config)
