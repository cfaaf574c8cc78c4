"""Show the plugins that pdiff finds."""

import argparse

from rich.console import Console
from rich.table import Table

from pdiff.plugins import list_plugins


def main() -> int:
    """Print a row per plugin: name, origin, hooks, state."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every installed plugin with its state")
    parser.parse_args()
    table = Table("name", "origin", "hooks", "state")
    for plugin in list_plugins():
        table.add_row(plugin.name, plugin.origin, ", ".join(plugin.hooks), plugin.state)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
