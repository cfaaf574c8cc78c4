"""Run a config with other values of some of its keys, and compare: ablations by one command."""

try:
    from pdiff.commands.sweep import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
