"""Write one candidate of a run, or a network for a condition, as a full state dict, the frozen network around it."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdiff.runtime.errors import command


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--source", help="trained, generated, soup, ...; with --condition also best, which is default")
    which = parser.add_mutually_exclusive_group()
    words = "best (chosen on the select split; default; not where checkpoints have conditions) or a number"
    which.add_argument("--pick", default="best", help=words)
    words = "what the network is for, a number for each name of the condition; or, of several that are 0 or 1, those "
    words += "that are 1: class=0,3 for class0=1 class3=1 ..., classes=cat,dog for classes.cat=1 classes.dog=1 ..."
    which.add_argument("--condition", nargs="+", metavar="KEY=VALUE", help=words)
    parser.add_argument("-o", "--output", type=Path, required=True, help="model.safetensors, or as the task writes it")
    return parser.parse_args(argv)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder: what a run's config names by a relative path is there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@command()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Export."""
    arguments = parse(argv, prog)
    from pdiff.run.export import export, export_for, made_in

    run, output = arguments.run.expanduser(), arguments.output.expanduser()
    folder = made_in(run)
    if folder != Path.cwd():
        run, output = run.absolute(), output.absolute()
    with inside(folder):
        if arguments.condition:
            source = export_for(run, arguments.source or "best", arguments.condition, output)
            print(f"{arguments.output}: {source} for {' '.join(arguments.condition)}")
            return
        source = arguments.source or "generated"
        index = export(run, source, arguments.pick, output)
    print(f"{arguments.output}: candidate {index} of {source}")
