"""The commands: each reads its arguments, calls the core, prints. What is heavy is imported once they are sound."""
