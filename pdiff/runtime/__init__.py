"""The ground: errors, files, seeds, processes, progress, registries; knows nothing of networks."""
