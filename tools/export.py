"""Write one candidate of a run as a full state dict, the frozen network around it."""

from pdiff.commands.export import main

if __name__ == "__main__":
    raise SystemExit(main())
