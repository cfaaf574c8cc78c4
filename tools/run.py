"""Run pdiff: collect checkpoints, fit the engine, generate, evaluate, compare."""

try:
    from pdiff.commands.run import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
