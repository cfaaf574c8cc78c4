"""Finding plugins: by entry point (group `pdiff.plugins`) and by path."""

import importlib.util
import inspect
import os
import sys
import zlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pluggy

from pdiff.runtime.errors import PdiffError, known
from pdiff.task import hookspecs
from pdiff.task.defaults import DEFAULTS

GROUP = "pdiff.plugins"
REQUIRED = ("build", "evaluate")


@dataclass(frozen=True)
class PluginInfo:
    """A row of the plugin list."""

    name: str
    origin: str
    hooks: tuple[str, ...]
    state: str


def list_plugins() -> list[PluginInfo]:
    """Return every installed plugin with its state; one that cannot be used says why and stops no other."""
    return [_describe(point) for point in _entry_points().values()]


def plugin_places() -> list[str]:
    """Return the folders of the installed plugins' packages, or the files where they are single modules."""
    specs = [importlib.util.find_spec(point.module.partition(".")[0]) for point in _entry_points().values()]
    return [place for spec in specs if spec for place in spec.submodule_search_locations or [spec.origin]]


def _entry_points() -> dict:
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def _describe(point) -> PluginInfo:
    origin = f"{point.value} ({point.dist.name} {point.dist.version})"
    try:
        manager = load_plugin(point.name)
    except PdiffError as error:
        return PluginInfo(point.name, origin, (), str(error))
    return PluginInfo(point.name, origin, tuple(hook_names(manager, point.name)), "ready")


def hook_names(manager: pluggy.PluginManager, name: str) -> list[str]:
    """Return the names of the hooks that a registered plugin implements."""
    return sorted(caller.name for caller in manager.get_hookcallers(manager.get_plugin(name)) or [])


def load_plugin(name: str) -> pluggy.PluginManager:
    """Return a manager that holds the core's defaults and one plugin.

    Args:
        name: an entry point's name, or the path of a plugin's folder or file.

    Raises:
        PdiffError: there is no such plugin, it cannot be imported, or its hooks do not fit the specification.
    """
    return register(plugin_name(name), import_plugin(name))


def plugin_name(name: str) -> str:
    """Return the short name of a plugin that is given by name or by path."""
    return _absolute(name).stem if _is_path(name) else name


def register(name: str, plugin: object) -> pluggy.PluginManager:
    """Return a manager with `plugin`, checked against the hook specs, and defaults for the hooks it leaves out."""
    manager = pluggy.PluginManager("pdiff")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PdiffError(f"plugin {name}: {' '.join(str(error).split())}") from error
    own = hook_names(manager, name)
    missing = [hook for hook in REQUIRED if hook not in own]
    if missing:
        raise PdiffError(f"plugin {name}: lacks the hook {missing[0]}. Define it, decorated with @pdiff.hookimpl.")
    for hook, default in DEFAULTS.items():
        if hook not in own:
            manager.register(default, f"default {hook}")
    return manager


def import_plugin(name: str) -> ModuleType:
    """Import the module of a plugin that is given by name or by path."""
    try:
        module = _import_path(_absolute(name)) if _is_path(name) else _import_entry_point(name)
    except PdiffError:
        raise
    except (Exception, SystemExit) as error:
        raise PdiffError(f"plugin {name}: cannot be imported ({type(error).__name__}: {error}).") from error
    _check_requirements(plugin_name(name), module)
    return module


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith(".py") or (Path(name).is_dir() and name not in _entry_points())


def _absolute(name: str) -> Path:
    return Path(os.path.abspath(name))


def _import_entry_point(name: str) -> ModuleType:
    points = _entry_points()
    if name not in points:
        raise PdiffError(f"plugin: got {name!r}. {known(name, points)} Or give the path of a plugin.")
    return points[name].load()


def _import_path(path: Path) -> ModuleType:
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        raise PdiffError(f"plugin: got {str(path)!r}, expected a Python file or a folder with __init__.py.")
    # The path is part of the name, so that two plugins of one name do not share their modules.
    name = f"pdiff_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, as for any import, so that relative imports inside the plugin find it.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _check_requirements(name: str, module: ModuleType) -> None:
    """A plugin may name the packages it needs in `REQUIRES`, so that the list can say which one is missing."""
    for package in getattr(module, "REQUIRES", ()):
        if not _is_installed(package):
            advice = f"Run: pip install 'pdiff[{name}]'." if _has_extra(name) else "Install it."
            raise PdiffError(f"plugin {name}: needs the package {package}. {advice}")


def _has_extra(name: str) -> bool:
    """A plugin of pdiff's own distribution has an extra of its name, and no other plugin has."""
    point = _entry_points().get(name)
    return point is not None and point.dist.name == "pdiff"


def _is_installed(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ImportError:  # of the package that a dotted name lies in
        return False


def default_config(name: str) -> Path | None:
    """Return the plugin's embedded config: `default.yaml` in its folder, or `<file>.yaml` beside a single file."""
    file = Path(inspect.getfile(import_plugin(name)))
    path = file.with_name("default.yaml") if file.name == "__init__.py" else file.with_suffix(".yaml")
    return path if path.is_file() else None
