"""Finding plugins: by entry point (group `pdiff.plugins`) and by path."""

import importlib.util
import os
import sys
import zlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pdiff.runtime.errors import PdiffError, known

if TYPE_CHECKING:
    import pluggy

GROUP = "pdiff.plugins"
REQUIRED = ("build", "evaluate")
BELOW = ("*/__init__.py", "src/*/__init__.py")  # where a project's folder has its package
NO_PLUGINS = ("tests", "test", "docs", "examples")


@dataclass(frozen=True)
class PluginInfo:
    """A row of the plugin list."""

    name: str
    origin: str
    hooks: tuple[str, ...]
    state: str


def list_plugins() -> list[PluginInfo]:
    """Return every installed plugin with its state; one that cannot be used says why and stops no other."""
    return [describe(point) for point in installed().values()]


def installed() -> dict[str, EntryPoint]:
    """Return the entry points of installed plugins by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def describe(point: EntryPoint) -> PluginInfo:
    """Return the row of an installed plugin."""
    origin = f"{point.value} ({point.dist.name} {point.dist.version})"
    try:
        manager = load_plugin(point.name)
    except PdiffError as error:
        return PluginInfo(point.name, origin, (), str(error))
    return PluginInfo(point.name, origin, tuple(hook_names(manager, point.name)), "ready")


def hook_names(manager: "pluggy.PluginManager", name: str) -> list[str]:
    """Return the names of the hooks that a registered plugin implements."""
    return sorted(caller.name for caller in manager.get_hookcallers(manager.get_plugin(name)) or [])


def load_plugin(name: str) -> "pluggy.PluginManager":
    """Return a manager that holds the core's defaults and one plugin.

    Args:
        name: an entry point's name, or the path of a plugin's folder or file.

    Raises:
        PdiffError: there is no such plugin, it cannot be imported, or its hooks do not fit the specification.
    """
    return register(plugin_name(name), import_plugin(name))


def plugin_name(name: str) -> str:
    """Return the short name of a plugin that is given by name or by path."""
    return located(name).stem if is_path(name) else name


def register(name: str, plugin: object) -> "pluggy.PluginManager":
    """Return a manager with `plugin`, checked against the hook specs, and defaults for the hooks it leaves out."""
    import pluggy

    from pdiff.task import hookspecs
    from pdiff.task.defaults import DEFAULTS

    manager = pluggy.PluginManager("pdiff")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PdiffError(f"plugin {name}: {' '.join(str(error).split())}") from error
    check_handed_over(manager, name)
    own = hook_names(manager, name)
    if "ensemble" in own and takes_ensembles(manager):
        line = "has the hook ensemble beside an evaluate that takes ensembles, and would never be asked by it"
        raise PdiffError(f"plugin {name}: {line}. Leave one of them out.")
    missing = [hook for hook in REQUIRED if hook not in own]
    if missing:
        raise PdiffError(f"plugin {name}: lacks the hook {missing[0]}. Define it, decorated with @pdiff.hookimpl.")
    for hook, default in DEFAULTS.items():
        if hook not in own:
            manager.register(default, f"default {hook}")
    return manager


def check_handed_over(manager: "pluggy.PluginManager", name: str) -> None:
    """Raise a `PdiffError` for an argument that a hook would never get: pluggy hands over those without a default."""
    for caller in manager.get_hookcallers(manager.get_plugin(name)) or []:
        for hook in caller.get_hookimpls():
            given = [argument for argument in hook.kwargnames if argument in caller.spec.argnames]
            if given:
                line = f"{caller.name} has a default for {given[0]!r}, which then is never handed over"
                raise PdiffError(f"plugin {name}: {line}. Leave the default out, or the argument.")


def takes_ensembles(manager: "pluggy.PluginManager") -> bool:
    """Say whether the plugin's `evaluate` measures ensembles, too, in one pass with the candidates."""
    return any("ensembles" in hook.argnames for hook in manager.hook.evaluate.get_hookimpls())


def import_plugin(name: str) -> ModuleType:
    """Import the module of a plugin that is given by name or by path."""
    try:
        module = import_file(plugin_file(name)) if is_path(name) else entry_point(name).load()
    except PdiffError:
        raise
    except (Exception, SystemExit) as error:
        raise PdiffError(f"plugin {name}: cannot be imported ({type(error).__name__}: {error}).") from error
    check_requirements(plugin_name(name), module)
    return module


def is_path(name: str) -> bool:
    """Say whether a plugin is given by its path."""
    return "/" in name or name[:1] == "~" or name.endswith(".py") or (os.path.isdir(name) and name not in installed())


def located(name: str) -> Path:
    """Return the file or the package's folder of a plugin that is given by its path.

    A folder without `__init__.py` means the package one folder below, as `plugins new` writes it, or in its `src`.

    Raises:
        PdiffError: there are several packages below it.
    """
    path = Path(os.path.abspath(os.path.expanduser(name)))
    if not os.path.isdir(path) or (path / "__init__.py").is_file():
        return path
    found = sorted(file.parent for pattern in BELOW for file in path.glob(pattern))
    packages = [folder for folder in found if folder.name not in NO_PLUGINS]
    if len(packages) > 1:
        names = ", ".join(map(str, packages))
        raise PdiffError(f"plugin: got {str(path)!r}, expected a folder with one package. Give one of {names}.")
    return packages[0] if packages else path


def entry_point(name: str) -> EntryPoint:
    """Return the entry point of an installed plugin."""
    points = installed()
    if name not in points:
        raise PdiffError(f"plugin: got {name!r}. {known(name, points)} Or give the path of a plugin.")
    return points[name]


def plugin_file(name: str) -> Path | None:
    """Return the file of a plugin's module, which is not imported; None where it cannot be found so.

    Raises:
        PdiffError: there is no such plugin.
    """
    if is_path(name):
        path = located(name)
        file = path / "__init__.py" if os.path.isdir(path) else path
        if not os.path.isfile(file):
            raise PdiffError(f"plugin: got {str(path)!r}, expected a Python file or a folder with __init__.py.")
        return file
    try:
        spec = importlib.util.find_spec(entry_point(name).module)
    except ImportError:  # of the package that it lies in
        return None
    return Path(spec.origin) if spec and spec.origin else None


def import_file(file: Path) -> ModuleType:
    """Import a module by its path, once: a second time it would register its classes again."""
    path = file.parent if file.name == "__init__.py" else file
    # The path is part of the name, so that two plugins of one name do not share their modules.
    name = f"pdiff_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    written = file.stat().st_mtime_ns
    if name in sys.modules and sys.modules[name].__written__ == written:
        return sys.modules[name]
    for stale in [module for module in sys.modules if module.startswith(f"{name}.")]:
        del sys.modules[stale]  # of the file as it was, or of an import that failed
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
    module = importlib.util.module_from_spec(spec)
    module.__written__ = written
    # Registered before it runs, as for any import, so that relative imports inside the plugin find it.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_requirements(name: str, module: ModuleType) -> None:
    """A plugin may name the packages it needs in `REQUIRES`, so that the list can say which one is missing."""
    for package in getattr(module, "REQUIRES", ()):
        if not is_installed(package):
            advice = f"Run: pip install 'pdiff[{name}]'." if has_extra(name) else "Install it."
            raise PdiffError(f"plugin {name}: needs the package {package}. {advice}")


def has_extra(name: str) -> bool:
    """A plugin of pdiff's own distribution has an extra of its name, and no other plugin has."""
    point = installed().get(name)
    return point is not None and point.dist.name == "pdiff"


def is_installed(package: str) -> bool:
    """Say whether a package, or a module inside one, can be imported."""
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ImportError:  # of the package that a dotted name lies in
        return False


def default_config(name: str) -> Path | None:
    """Return the plugin's embedded config: `default.yaml` in its folder, or `<file>.yaml` beside a single file."""
    file = plugin_file(name)
    if file is None:
        return None
    path = file.with_name("default.yaml") if file.name == "__init__.py" else file.with_suffix(".yaml")
    return path if path.is_file() else None
