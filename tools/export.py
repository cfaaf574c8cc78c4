"""Write one candidate of a run as a full state dict, the frozen network around it."""

try:
    from pdiff.commands.export import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
