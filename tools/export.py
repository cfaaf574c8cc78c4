"""Write one candidate of a run as a full state dict, the frozen network around it."""

import argparse
from pathlib import Path

from pdiff.run.export import export
from pdiff.runtime.errors import command


@command
def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--source", default="generated", help="trained, generated (default), soup, ...")
    parser.add_argument("--pick", default="best", help="best (chosen on the select split; default) or a number")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model.safetensors, or as the task writes it")
    arguments = parser.parse_args()
    index = export(arguments.run, arguments.source, arguments.pick, arguments.output)
    print(f"{arguments.output}: candidate {index} of {arguments.source}")


if __name__ == "__main__":
    raise SystemExit(main())
