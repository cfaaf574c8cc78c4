"""Generate neural-network parameters with latent diffusion, for any task by plugin."""

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.packing import pack, unpack
from pdiff.runtime.progress import progress
from pdiff.runtime.seeding import derive_seed, resolve_device
from pdiff.task.hookspecs import hookimpl
from pdiff.task.task import Candidates, Evaluation, Metric, Picture, Snapshot, Task, Work
from pdiff.weights.layout import Layout
from pdiff.weights.select import select

__all__ = [
    "Candidates",
    "Evaluation",
    "Layout",
    "Metric",
    "ParameterDiffusion",
    "PdiffError",
    "Picture",
    "Replay",
    "Snapshot",
    "Task",
    "Work",
    "call",
    "derive_seed",
    "hookimpl",
    "pack",
    "progress",
    "resolve_device",
    "select",
    "unpack",
]

LAZY = {
    "ParameterDiffusion": "pdiff.engine.parameter_diffusion",
    "Replay": "pdiff.task.replay",
    "call": "pdiff.runtime.registry",
}


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'pdiff' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(LAZY[name]), name)
