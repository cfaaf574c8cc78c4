"""The engine: from vectors to new vectors; knows nothing of tasks."""
