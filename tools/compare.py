"""Set runs of several tasks side by side: what is gained, how new it is, what it costs."""

try:
    from pdiff.commands.compare import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
