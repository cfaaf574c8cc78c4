"""What builds a `type:` of the config: a registered class or function, one of another package, or a class itself."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
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
        PdiffError: there is nothing of that name, or it cannot be called.
    """
    if callable(kind):
        return kind
    registry.import_from_location()
    name = kind if isinstance(kind, str) else ""
    if name not in registry.module_dict:
        load_entry_points()
    if name in registry.module_dict:
        return registry.module_dict[name]
    if ":" in name:
        return import_named(name, where)
    raise PdiffError(f"{where}.type: got {kind!r}. {known(str(kind), registry.module_dict)}")


def import_named(kind: str, where: str) -> Any:
    """Return the class or function that stands at `module:name`."""
    try:
        found = resolve_name(kind)
    except Exception as error:  # whatever the module raises
        line = f"{where}.type: got {kind!r}, which cannot be imported ({' '.join(str(error).split())})."
        raise PdiffError(line) from error
    if not callable(found):
        raise PdiffError(f"{where}.type: got {kind!r}, which is neither a class nor a function. Name one.")
    return found


def load_entry_points() -> None:
    """Import what other packages announce: it registers classes."""
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # whatever the package raises
            raise PdiffError(f"{point.value} of {point.dist.name}: cannot be imported ({error}). Mend it.") from error


def signature_of(target: Any, where: str) -> inspect.Signature:
    """Return which arguments a class or function takes; raise a `PdiffError` for one that does not say it."""
    try:
        return inspect.signature(target)
    except ValueError:
        line = f"{where}: got type {name_of(target)!r}, which does not say what it takes. Write a function around it."
        raise PdiffError(line) from None


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
    return prepare(registry, cfg, where, offered, **given)()


def prepare(
    registry: Registry, cfg: Mapping[str, Any], where: str, offered: Mapping[str, Any] | None = None, **given: Any
) -> Callable[[], Any]:
    """Return what does the building, with everything checked; see `build`."""
    check_section(cfg, where)
    arguments = dict(cfg)
    kind = arguments.pop("type", None)
    target = find(registry, kind, where)
    taken = signature_of(target, where).parameters
    for name in given:
        if name not in taken:
            raise PdiffError(f"{where}: got type {name_of(kind)!r}, which takes no {name}. Give it that argument.")
    wanted = {name: value for name, value in (offered or {}).items() if name in taken}
    return bind(target, arguments, where, **given, **wanted)


def call(target: Any, arguments: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call a class or function with a config section as its arguments, unknown and missing ones refused by name."""
    return bind(target, arguments, where, **given)()


def bind(target: Any, arguments: Mapping[str, Any], where: str, **given: Any) -> Callable[[], Any]:
    """Return the call of a class or function with a config section as its arguments; see `call`."""
    signature = signature_of(target, where)
    settings = [name for name in signature.parameters if name not in given]
    check_keys(arguments, settings, where)
    try:
        bound = signature.bind(**arguments, **given)
    except TypeError as error:
        raise PdiffError(f"{where}: {error}. Arguments: {', '.join(settings)}.") from None
    for name, value in arguments.items():
        check_type(value, signature.parameters[name].annotation, f"{where}.{name}")
    return partial(target, *bound.args, **bound.kwargs)
