"""Set runs of several tasks side by side: what is gained, how new it is, what it costs."""

from pdiff.commands.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
