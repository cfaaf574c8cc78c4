"""Write one candidate of a run as a full state dict, the frozen network around it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pdiff.runtime.errors import command


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--source", default="generated", help="trained, generated (default), soup, ...")
    parser.add_argument("--pick", default="best", help="best (chosen on the select split; default) or a number")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model.safetensors, or as the task writes it")
    return parser.parse_args(argv)


@command()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Export."""
    arguments = parse(argv, prog)
    from pdiff.run.export import export

    index = export(arguments.run, arguments.source, arguments.pick, arguments.output)
    print(f"{arguments.output}: candidate {index} of {arguments.source}")
