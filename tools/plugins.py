"""Show the plugins that pdiff finds, write a new one, check whether one keeps the rules."""

try:
    from pdiff.commands.plugins import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    raise SystemExit(main())
