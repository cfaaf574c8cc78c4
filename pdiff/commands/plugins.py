"""Show the plugins that pdiff finds, write a new one, check whether one keeps the rules."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pdiff.commands.setting import add_settings
from pdiff.runtime.errors import command


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every installed plugin with its state")
    new = commands.add_parser("new", help="write a plugin that runs at once")
    new.add_argument("name", help="of the plugin and its package: a Python identifier")
    new.add_argument("--path", type=Path, default=Path(), help="the folder that it is put into; default: here")
    check = commands.add_parser("check", help="check a plugin; exit code 1 where a check failed")
    check.add_argument("plugin", help="name of an installed plugin, or path of a plugin's folder or file")
    check.add_argument("--config", help="YAML file; default: the plugin's embedded config")
    words = "on a simulated GPU: says which hook mixes tensors of the GPU and of the host"
    check.add_argument("--simulate-cuda", action="store_true", help=words)
    add_settings(check)
    return parser.parse_args(argv)


def show(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


@command()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Do what was asked, and return the exit code: 1 for a failed check."""
    arguments = parse(argv, prog)
    if arguments.command == "list":
        from pdiff.task.plugins import list_plugins

        found = [(plugin.name, plugin.origin, ", ".join(plugin.hooks), plugin.state) for plugin in list_plugins()]
        show(("name", "origin", "hooks", "state"), found)
        return 0
    if arguments.command == "new":
        from pdiff.scaffold import write_plugin

        print(write_plugin(arguments.name, arguments.path))
        return 0
    from pdiff.testing.conformance import check_plugin

    findings = check_plugin(arguments.plugin, arguments.config, arguments.cfg_options, arguments.simulate_cuda)
    show(("check", "hook", "state", "what was seen"), [(f.check, f.hook, f.state, f.line) for f in findings])
    return int(any(finding.state == "failed" for finding in findings))
