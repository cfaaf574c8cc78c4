"""The engine: from vectors to new vectors; knows nothing of tasks."""

from pdiff.runtime.lazy import lazily

__getattr__ = lazily(__name__, {"ParameterDiffusion": "pdiff.engine.parameter_diffusion"})
