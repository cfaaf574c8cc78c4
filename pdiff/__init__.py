"""Generate neural-network parameters with latent diffusion, for any task by plugin."""

from pdiff.errors import PdiffError
from pdiff.hookspecs import hookimpl
from pdiff.progress import progress
from pdiff.seeding import derive_seed, resolve_device
from pdiff.state import pack, unpack
from pdiff.task import Candidates, Evaluation, Metric, Picture, Snapshot, Task, Work
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

LAZY = {"ParameterDiffusion": "pdiff.engine", "Replay": "pdiff.replay", "call": "pdiff.registry"}


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module 'pdiff' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(LAZY[name]), name)
