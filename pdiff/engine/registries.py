"""The parts of the engine that a config chooses by `type`; a new one is a file of its own, named here."""

from mmengine.registry import Registry

SCALINGS = Registry("scaling", scope="pdiff", locations=["pdiff.engine.scaling"])
AUTOENCODERS = Registry("autoencoder", scope="pdiff", locations=["pdiff.engine.autoencoder", "pdiff.engine.tokens"])
DENOISERS = Registry("denoiser", scope="pdiff", locations=["pdiff.engine.denoiser", "pdiff.engine.transformer"])
SAMPLERS = Registry("sampler", scope="pdiff", locations=["pdiff.engine.samplers"])
ROOMS = [f"pdiff.engine.{room}" for room in ("denoising", "gaussian", "vae", "gan")]
GENERATORS = Registry("generator", scope="pdiff", locations=ROOMS)
