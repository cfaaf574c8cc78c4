"""What builds a `type:` of the config: a registered class or function, one of another package, or a class itself."""

import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from mmengine.registry import Registry

from pdiff.runtime.errors import PdiffError, check_keys, check_section, check_type, known
from pdiff.runtime.settings import name_of

GROUP = "pdiff.parts"  # of entry points: modules of other packages that fill the registries


def find(registry: Registry, kind: Any, where: str) -> Any:
    """Return the class or function that a `type` means.

    Args:
        registry: where a name is looked up; entry points of the group `pdiff.parts` may have added to it.
        kind: a name, `module:name` of something that is not registered, or a class or function.
        where: the section's place in the config, for the error line.

    Raises:
        PdiffError: there is nothing of that name.
    """
    if callable(kind):
        return kind
    registry.import_from_location()
    if kind not in registry.module_dict:
        load_entry_points()
    if kind in registry.module_dict:
        return registry.module_dict[kind]
    if isinstance(kind, str) and ":" in kind:
        try:
            return resolve_name(kind)
        except (ImportError, AttributeError, ValueError) as error:
            raise PdiffError(f"{where}.type: got {kind!r}, which cannot be imported ({error}).") from error
    raise PdiffError(f"{where}.type: got {kind!r}. {known(str(kind), registry.module_dict)}")


def load_entry_points() -> None:
    """Import what other packages announce: it registers classes."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # whatever the package raises
            raise PdiffError(f"{point.value} of {point.dist.name}: cannot be imported ({error}). Mend it.") from error


def build(
    registry: Registry, cfg: Mapping[str, Any], where: str, offered: Mapping[str, Any] | None = None, **given: Any
) -> Any:
    """Build what a config section describes.

    Args:
        registry: where its `type` is looked up.
        cfg: `type` and the arguments of that class or function.
        where: the section's place in the config, for the error line.
        offered: arguments that come from the program; the class or function gets those it takes.
        given: arguments that come from the program and must be taken.

    Raises:
        PdiffError: the type is unknown, an argument is unknown, one is missing, or one that is given is not taken.
    """
    check_section(cfg, where)
    arguments = dict(cfg)
    kind = arguments.pop("type", None)
    target = find(registry, kind, where)
    taken = inspect.signature(target).parameters
    for name in given:
        if name not in taken:
            raise PdiffError(f"{where}: got type {name_of(kind)!r}, which takes no {name}. Give it that argument.")
    wanted = {name: value for name, value in (offered or {}).items() if name in taken}
    return call(target, arguments, where, **given, **wanted)


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
