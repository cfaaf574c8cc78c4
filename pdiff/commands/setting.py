"""Settings on the command line: `--cfg-options a.b=value ...`, each value as YAML reads it or as the text it is."""

import argparse
from collections.abc import Sequence
from typing import Any

HELP = (
    "settings over the config: a.b=value ...; a value is what YAML reads: a number, true, false, null, [a, b], {a: b}, "
    "'007' in quotes of its own; all else is a text as it is typed, blanks, commas and brackets included"
)


class Settings(argparse.Action):
    """Collects the words of `--cfg-options` as values by dotted key."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Add some words; raise a `PdiffError` for one that sets nothing, or a key that is set."""
        from pdiff.run.config import read_options  # only now: --help needs none of it

        found: dict[str, Any] = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, read_options(values, found))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--cfg-options`."""
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", action=Settings, help=HELP)
