"""Many runs by one command: a config, keys whose values are varied, and seeds."""
