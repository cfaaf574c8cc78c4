"""Run pdiff: collect checkpoints, fit the engine, generate, evaluate, compare."""

from pdiff.commands.run import main

if __name__ == "__main__":
    raise SystemExit(main())
