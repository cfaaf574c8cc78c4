"""Run pdiff: collect checkpoints, fit the engine, generate, evaluate, compare."""

import argparse
import logging
import sys
from pathlib import Path

import yaml
from mmengine.config import DictAction

from pdiff.plan.show import show_plan
from pdiff.report.table import print_table
from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline, stages_of
from pdiff.task.plugins import plugin_name


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", help="name of an installed plugin, or path of a plugin's folder or file")
    parser.add_argument("--config", help="YAML file; default: the plugin's embedded config")
    parser.add_argument("--work-dir", help="run directory; default: runs/<plugin>")
    parser.add_argument("--stage", default="all", help="collect, fit, generate, evaluate, compare or all (default)")
    parser.add_argument("--resume", action="store_true", help="keep what is done and go on where a run stopped")
    parser.add_argument("--overwrite", action="store_true", help="repeat the stages, with another config too")
    parser.add_argument("--no-gates", action="store_true", help="go on where the check at the end of a stage fails")
    parser.add_argument("--profile", action="store_true", help="show in the report where the time of each stage went")
    parser.add_argument("--seed", type=int, help="seed of everything; default: the config's")
    parser.add_argument("--device", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="settings over the config: a.b=value ...")
    parser.add_argument("--dry-run", action="store_true", help="print the config and what the run will cost")
    parser.add_argument(
        "--launcher", default="none", choices=["none", *processes.LAUNCHERS], help="what has started several processes"
    )
    return parser.parse_args()


def main() -> int:
    """Run, and return the exit code: 2 for what the user can mend."""
    arguments = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        processes.join(arguments.launcher)
        logging.getLogger("pdiff").setLevel(logging.INFO if processes.is_main() else logging.ERROR)
        over = {"seed": arguments.seed, "device": arguments.device}
        config = load_config(arguments.plugin, arguments.config, over, arguments.cfg_options or {})
        directory = RunDirectory(Path(arguments.work_dir or f"runs/{plugin_name(config.plugin)}"))
        if arguments.dry_run and not processes.is_main():
            return 0
        if arguments.dry_run:
            print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="", flush=True)
            show_plan(config, directory.path)
            return 0
        stages, gates = stages_of(arguments.stage), not arguments.no_gates
        run_pipeline(config, directory, stages, arguments.resume, arguments.overwrite, gates, arguments.profile)
    except PdiffError as error:
        processes.say_once(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        processes.say_once("interrupted: the same command with --resume goes on")
        return 130
    summary = directory.folder("compare") / "summary.json"
    if processes.is_main() and summary.exists():
        print_table(read_json(summary))
        print(f"report: {summary.parent}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
