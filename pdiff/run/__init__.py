"""One run: its config, its directory, what is read from it and written to it."""
