"""A stand-in for mmcv's compiled extension, where mmcv was installed without a compiler.

`mmcv.ops` takes its operators from the module `mmcv._ext`, which pip leaves out of an mmcv that it builds in
isolation. The stand-in has those of `operators/`; every other one says, when it is called, that it is missing.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

from pdiff import PdiffError

NAME = "mmcv._ext"
INSTALL = "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation onedl-mmcv"


def missing(name: str) -> Callable:
    """Return a function that refuses to be an operator of mmcv.

    Args:
        name: the operator's name.
    """

    def refuse(*args, **kwargs):
        raise PdiffError(
            f"mmcv: the operator {name} is only in the compiled mmcv, which is not installed. Install an mmcv that "
            f"was built with its operators (under torch 2.13 or older, with a C++ compiler: {INSTALL}), or choose a "
            "network that does without it."
        )

    return refuse


class StandIn(ModuleType):
    """The module `mmcv._ext` without the compiled operators; it knows every name, as mmcv asks for all of them."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        return missing(name)


class OperatorLoader(importlib.abc.Loader):
    """Makes the stand-in; older mmengine and mmcv take the extension for absent when its spec has no loader."""

    def create_module(self, spec: ModuleSpec) -> StandIn:
        """Return the stand-in, still empty."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators in."""
        from pdiff_plugins.openmmlab import operators

        for name in operators.__all__:
            setattr(module, name, getattr(operators, name))


def provide_operators() -> bool:
    """Put the stand-in in the place of `mmcv._ext`, unless there is a compiled one, which is used untouched.

    It must come before the first import of `mmcv.ops`, and so before that of mmdet or mmseg; repeating it does nothing.

    Returns:
        whether mmcv works with the stand-in.
    """
    if isinstance(sys.modules.get(NAME), StandIn):
        return True
    if importlib.util.find_spec(NAME):
        return False
    spec = ModuleSpec(NAME, OperatorLoader(), origin=__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = sys.modules["mmcv"]._ext = module
    return True
