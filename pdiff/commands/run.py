"""Run pdiff: collect checkpoints, fit the engine, generate, evaluate, compare."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pdiff.commands.setting import add_settings
from pdiff.runtime.errors import PdiffError, command, known
from pdiff.runtime.launchers import LAUNCHERS


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("--plugin", help="name of an installed plugin, or path of a plugin's folder or file")
    parser.add_argument("--config", help="YAML file; default: the plugin's embedded config")
    parser.add_argument("--work-dir", help="run directory; default: runs/<plugin>")
    parser.add_argument("--collection", metavar="RUN", help="directory of a run whose collection is taken")
    parser.add_argument("--stage", default="all", help="collect, fit, generate, evaluate, compare or all (default)")
    parser.add_argument("--resume", action="store_true", help="keep what is done and go on where a run stopped")
    parser.add_argument("--overwrite", action="store_true", help="repeat the stages, with another config too")
    parser.add_argument("--no-gates", action="store_true", help="go on where the check at the end of a stage fails")
    parser.add_argument("--seed", type=int, help="seed of everything; default: the config's")
    parser.add_argument("--device", help="auto (default), cpu, cuda, cuda:1, ...")
    add_settings(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the config and what the run needs")
    parser.add_argument(
        "--launcher", default="none", choices=["none", *LAUNCHERS], help="what has started several processes"
    )
    return parser.parse_args(argv)


def tell(line: str) -> None:
    """Say why the run ends; where it has several processes, once."""
    if "pdiff.runtime.processes" in sys.modules:
        from pdiff.runtime.processes import say_once

        say_once(line)
    else:
        print(line, file=sys.stderr)


@command(tell, ": the same command with --resume goes on")
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run, and return the exit code: 2 for what the user can mend."""
    arguments = parse(argv, prog)
    if arguments.launcher != "none" or "TORCHELASTIC_RUN_ID" in os.environ:
        from pdiff.runtime.processes import join

        join(arguments.launcher)
    from pdiff.run.config import told_of_bases

    with told_of_bases(arguments.config):
        return perform(arguments)


def perform(arguments: argparse.Namespace) -> int:
    """Do what the arguments say, and return the exit code."""
    from pdiff.run.config import load_config
    from pdiff.run.stage import STAGES
    from pdiff.task.plugins import plugin_name

    if arguments.stage not in ("all", *STAGES):
        raise PdiffError(f"--stage: got {arguments.stage!r}. {known(arguments.stage, [*STAGES, 'all'])}")
    if arguments.collection == "":  # a variable of the shell that is not set: to collect would be another run
        raise PdiffError("--collection: got '', expected the directory of a run. Name one, or leave it out.")
    stages = list(STAGES) if arguments.stage == "all" else [arguments.stage]
    over = {"seed": arguments.seed, "device": arguments.device}
    config = load_config(arguments.plugin, arguments.config, over, arguments.cfg_options or {})

    from pdiff.run.directory import RunDirectory

    directory = RunDirectory(Path(arguments.work_dir or f"runs/{plugin_name(config.plugin)}").expanduser())
    collection = Path(arguments.collection).expanduser() if arguments.collection else None
    if arguments.dry_run:
        return show_plan(config, directory.path, collection)

    from pdiff.report.table import print_table
    from pdiff.runtime.processes import is_main
    from pdiff.runtime.storage import read_json
    from pdiff.stages.pipeline import run_pipeline

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pdiff").setLevel(logging.INFO if is_main() else logging.ERROR)
    gates = not arguments.no_gates
    run_pipeline(config, directory, stages, arguments.resume, arguments.overwrite, gates, collection)
    summary = directory.folder("compare") / "summary.json"
    if is_main() and summary.exists():
        print_table(read_json(summary))
        print(f"report: {summary.parent}")
    return 0


def show_plan(config, work_dir: Path, collection: Path | None) -> int:
    """Print the config and, as comments below it, what a run of it needs; in the first process."""
    from pdiff.plan import check_plan, make_plan, plan_lines
    from pdiff.run.collection import check_source
    from pdiff.run.directory import RunDirectory
    from pdiff.runtime.processes import is_main
    from pdiff.runtime.seeding import resolve_device
    from pdiff.runtime.settings import to_yaml

    if not is_main():
        return 0
    print(to_yaml(config.to_dict()), end="", flush=True)
    known_by = work_dir
    if collection is not None and not RunDirectory(work_dir).started("collect"):
        check_source(collection, config.to_dict())
        known_by = collection
    plan = make_plan(config, known_by)
    print(*(f"# {line}" for line in plan_lines(plan)), sep="\n", flush=True)
    check_plan(plan, work_dir, resolve_device(config.device))
    return 0
