"""The registries: which class builds a `type:` of the config."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

from pdiff.runtime.errors import PdiffError, check_keys, check_section, check_type, known

SCALINGS = Registry("scaling", scope="pdiff")
AUTOENCODERS = Registry("autoencoder", scope="pdiff")
DENOISERS = Registry("denoiser", scope="pdiff")
SCHEDULERS = Registry("scheduler", scope="pdiff")
SOURCES = Registry("source", scope="pdiff")


def build(registry: Registry, cfg: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Build what a config section describes.

    Args:
        registry: where its `type` is looked up.
        cfg: `type` and the arguments of that class or function.
        where: the section's place in the config, for the error line.
        given: arguments that come from the program, not from the config; the class or function gets those it takes.

    Raises:
        PdiffError: the type is unknown, an argument is unknown, or one is missing.
    """
    check_section(cfg, where)
    arguments = dict(cfg)
    name = arguments.pop("type", None)
    target = registry.module_dict.get(name)
    if target is None:
        raise PdiffError(f"{where}.type: got {name!r}. {known(str(name), registry.module_dict)}")
    taken = inspect.signature(target).parameters
    return call(target, arguments, where, **{name: value for name, value in given.items() if name in taken})


def call(target: Any, arguments: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call a class or function with a config section as its arguments, unknown and missing ones refused by name."""
    signature = inspect.signature(target)
    settings = [name for name in signature.parameters if name not in given]
    check_keys(arguments, settings, where)
    try:
        bound = signature.bind(**arguments, **given)
    except TypeError as error:
        raise PdiffError(f"{where}: {error}. Arguments: {', '.join(settings)}.") from None
    for name, value in arguments.items():
        check_type(value, signature.parameters[name].annotation, f"{where}.{name}")
    return target(*bound.args, **bound.kwargs)
