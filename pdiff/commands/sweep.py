"""Run a config with other values of some of its keys, and compare: ablations by one command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdiff.commands.setting import add_settings
from pdiff.runtime.errors import command


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("--plugin", help="name of an installed plugin, or path of a plugin's folder or file")
    parser.add_argument("--config", help="YAML file; default: the plugin's embedded config")
    parser.add_argument("--sweep", help="YAML file that says all of it: plugin or config, options, vary, seeds, only")
    add_settings(parser)
    parser.add_argument(
        "--vary", nargs="+", action="extend", default=[], metavar="KEY=A,B",
        help="keys and their values, between commas; all keys are combined",
    )  # fmt: skip
    parser.add_argument("--each", action="store_true", help="vary each key by itself, beside the config as it is")
    parser.add_argument("--seeds", help="0,1,2: each setting with each of them, of the fit and all that follows it")
    parser.add_argument(
        "--only", nargs="+", metavar="SOURCE",
        help="sources to evaluate beside trained (or oracle) and generated; default: none",
    )  # fmt: skip
    parser.add_argument("--collect-again", action="store_true", help="a collection for each seed and each that differs")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    parser.add_argument("--print", action="store_true", help="print the commands, for a scheduler, and run nothing")
    parser.add_argument("--resume", action="store_true", help="keep what is done and go on where the sweep stopped")
    parser.add_argument("--overwrite", action="store_true", help="drop the runs of the sweep that is there")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/sweep"), help="folder (default: runs/sweep)")
    return parser.parse_args(argv)


@command(after=": the same command with --resume goes on")
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Sweep, and return the exit code: 2 also where a run has not ended well."""
    arguments = parse(argv, prog)
    from pdiff.runtime.errors import check_positive
    from pdiff.sweep.expanding import settings_of
    from pdiff.sweep.reading import over_file
    from pdiff.sweep.words import read_seeds, read_vary

    check_positive("sweep", jobs=arguments.jobs)
    told = {name: getattr(arguments, name) for name in ("plugin", "config", "only", "collect_again")}
    seeds = None if arguments.seeds is None else read_seeds(arguments.seeds)
    told |= {"options": arguments.cfg_options, "seeds": seeds}
    sweep = over_file(arguments.sweep, told, read_vary(arguments.vary), arguments.each)
    settings, folder = settings_of(sweep), arguments.work_dir.expanduser()

    from pdiff.sweep.checking import check_settings
    from pdiff.sweep.job import commands_of, jobs_of
    from pdiff.sweep.record import begin_sweep

    check_settings(settings)
    begin_sweep(folder, sweep, settings, arguments.resume, arguments.overwrite)
    if arguments.print:
        print(*commands_of(folder, *jobs_of(folder, settings)), sep="\n")
        return 0
    return perform(folder, sweep, settings, arguments.jobs)


def perform(folder: Path, sweep: Any, settings: Sequence[Any], number: int) -> int:
    """Run what is not done, write table, csv and pictures of what is, and return the exit code."""
    from pdiff.report.comparison_table import kind, markdown_rows
    from pdiff.report.side_by_side import print_rows
    from pdiff.run.csv_rows import csv_text
    from pdiff.run.grouping import MOST_KEYS, group_runs
    from pdiff.runtime.storage import write_text
    from pdiff.stages.pipeline import run_pipeline
    from pdiff.sweep.charts import write_charts
    from pdiff.sweep.record import FIGURES, TABLE
    from pdiff.sweep.results import lines_below, read_result, rows_of
    from pdiff.sweep.running import run_sweep

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pdiff").setLevel(logging.INFO)
    ended = run_sweep(folder, settings, number, run_pipeline)
    results = [read_result(folder, setting, ended[setting.name]) for setting in settings]
    write_text(folder / FIGURES, csv_text(rows_of(sweep.keys, results)))
    lines, done = lines_below(sweep.seeds_of, results), [result for result in results if result.run]
    parts = [f"- {line}" for line in lines] + [""]
    if done:
        groups = group_runs([result.run for result in done], sweep.keys if len(sweep.keys) <= MOST_KEYS else None)
        parts.insert(0, markdown_rows(kind(groups).table(groups)))
        print_rows(*kind(groups).for_terminal(groups), lines, whole=True)
    write_text(folder / TABLE, "\n".join(parts))
    written = [folder / FIGURES, folder / TABLE, *write_charts(folder, sweep.keys, done)]
    print(*([] if done else lines), f"sweep: {', '.join(map(str, written))}", sep="\n")
    return 2 if any(result.line for result in results) else 0
