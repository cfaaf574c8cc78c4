"""Show the plugins that pdiff finds, write a new one, check whether one keeps the rules."""

from pdiff.commands.plugins import main

if __name__ == "__main__":
    raise SystemExit(main())
