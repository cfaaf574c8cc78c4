"""The parts of the engine: scaling, autoencoder, whitening, denoiser, noise schedule, and their training."""
