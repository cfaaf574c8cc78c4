"""The command `pdiff`: one word for each of tools/*.py."""

import sys
from collections.abc import Sequence
from importlib import import_module

from pdiff.runtime.errors import PdiffError, command, known

COMMANDS = {
    "run": "collect checkpoints, fit the engine, generate, evaluate, compare",
    "sweep": "run a config with other values of some of its keys, and compare",
    "compare": "set runs of several tasks side by side",
    "export": "write one candidate of a run as a network",
    "plugins": "show the plugins, write a new one, check one",
}
HELP = "usage: pdiff COMMAND ...; pdiff COMMAND --help says more\n" + "".join(
    f"\n  {name:<9}{words}" for name, words in COMMANDS.items()
)


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the first word says, with the others as its arguments."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP)
        return 0
    if name not in COMMANDS:
        raise PdiffError(f"pdiff: got {name!r}. {known(name, COMMANDS)}")
    return import_module(f"pdiff.commands.{name}").main(rest, f"pdiff {name}")


if __name__ == "__main__":
    raise SystemExit(main())
