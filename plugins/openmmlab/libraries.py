"""mmdet or mmseg: importing one, opening its configs, building its networks."""

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
import re
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MMLogger
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.utils import is_installed
from pdiff_plugins.openmmlab.checkpoint import load_weights
from pdiff_plugins.openmmlab.extension import provide_operators
from pdiff_plugins.openmmlab.stock import drop_pretrained, set_classes
from torch import nn

from pdiff import Bfloat16OptimWrapper, PdiffError, check_section, derive_seed, isolated_seed

ADDRESS = re.compile(r" ?<[\w.]+ object at 0x[0-9a-f]+>")  # what Python calls an object that has no name
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def ignore_known_warnings() -> None:
    """Silence, for the whole process, what mmdet and mmseg provoke by calling torch and each other as they once did."""
    warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
    warnings.filterwarnings("ignore", "Default ``avg_non_ignore`` is False", UserWarning)


def register_bfloat16_wrapper() -> None:
    """Let configs name `Bfloat16OptimWrapper`: mmengine's own wrapper for mixed precision refuses CPUs."""
    OPTIM_WRAPPERS.register_module(module=Bfloat16OptimWrapper, force=True)


def register_package(name: str) -> None:
    """Let configs build on those of a library (`_base_ = 'mmseg::...'`) that another distribution than its first ships.

    Args:
        name: of the library's module, by which OneDL's builds are found: mmengine asks for `mmsegmentation` alone.
    """
    if not is_installed(MODULE2PACKAGE.get(name, name)):
        MODULE2PACKAGE[name] = name


@dataclass(frozen=True)
class Library:
    """What sets one of OpenMMLab's libraries apart.

    Attributes:
        name: of its package, which is also the scope of its registries.
        network: what its networks are called.
        base: module and name of the class that its networks derive from.
    """

    name: str
    network: str
    base: tuple[str, str]

    def load(self) -> None:
        """Import the library and register all that it has, the operators of mmcv provided.

        Raises:
            PdiffError: its version does not fit that of mmcv or mmengine.
        """
        provide_operators()
        ignore_known_warnings()
        try:
            with silence():
                importlib.import_module(f"{self.name}.utils").register_all_modules(init_default_scope=False)
        except Exception as error:  # versions that do not fit raise an AssertionError, missing parts an ImportError
            raise PdiffError(
                f"{self.name} cannot be imported ({one_line(error)}). Install versions that fit each other: "
                "pip install onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmsegmentation"
            ) from None
        register_bfloat16_wrapper()
        register_package(self.name)

    def registry(self, name: str) -> Any:
        """Return one of the library's registries, `MODELS` say."""
        return getattr(importlib.import_module(f"{self.name}.registry"), name)

    def scope(self):
        """Return a context in which types without a scope are the library's."""
        from mmengine.registry import DefaultScope

        return DefaultScope.overwrite_default_scope(self.name)


MMDET = Library("mmdet", "detector", ("mmdet.models.detectors.base", "BaseDetector"))
MMSEG = Library("mmseg", "segmentor", ("mmseg.models.segmentors.base", "BaseSegmentor"))
LIBRARIES = {library.name: library for library in (MMDET, MMSEG)}


def open_config(
    library: Library,
    config: str,
    checkpoint: str | None = None,
    key: str | None = None,
    prefix: str = "",
    rename: dict | None = None,
    cast: bool = False,
    options: dict | None = None,
    channels_last: bool = False,
    classes: Sequence[str] | None = None,
    pretrained: bool = True,
) -> Config:
    """Return a config of the library with `options` merged over it.

    Args:
        library: mmdet or mmseg.
        config: a path; or `<package>::<file>`, a config that an installed package ships.
        checkpoint: a file or an address, read without running code; every tensor must fit. Null: the config's initial
            weights.
        key, prefix, rename, cast: how to read that file, as `checkpoints` has them (docs/files.md).
        channels_last: the memory layout in which convolutions in bfloat16 are fast
            (`optim_wrapper.type=Bfloat16OptimWrapper` in `options`).
        options: what `--cfg-options` is for the library's own tools: nested sections, or dotted keys.
        classes: names of the classes of the data, in the order of the labels: for every data set of the config, and
            their number for every head. Null: what the config says.
        pretrained: false leaves out initial weights from a file or an address (`init_cfg`, `pretrained`), in every part
            of the network.

    Raises:
        PdiffError: there is no such file, it cannot be read, or it is no config of the library.
    """
    path = find_config(config)
    try:
        values = Config.fromfile(str(path))
        copy.deepcopy(values._cfg_dict)  # what follows copies it now and then; modules among the values cannot be
    except (Exception, SystemExit) as error:  # a config is a program, and raises what it likes
        raise PdiffError(f"task.model.config: {config} cannot be read ({one_line(error)}).") from None
    merge_options(values, {} if options is None else options)
    scope = values.get("default_scope", library.name)
    if scope != library.name:
        raise PdiffError(
            f"task.model.config: {config} is for {scope}, expected a config of {library.name}. "
            f"Give one whose default_scope is {library.name!r}."
        )
    for section in ("model", *LOADERS[::2]):
        if not values.get(section):
            line = f"task.model.config: {config} has no {section}, so it is no whole config of {library.name}."
            raise PdiffError(f"{line} Give one that a detector or segmentor is trained with.")
    if classes is not None:
        set_classes(values, LOADERS, classes)
    if not pretrained:
        drop_pretrained(values.model)
    return values


def restore_tuples(values: Any, own: Any) -> None:
    """Make tuples of lists that options have put in the place of tuples: YAML knows none, some transforms need them.

    Args:
        values: nested sections and lists, changed in place.
        own: the same before the options.
    """
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(pairs):
        old = own.get(key) if isinstance(own, dict) else own[key] if key < len(own) else None
        if isinstance(value, list) and isinstance(old, tuple):
            values[key] = tuple(value)
        elif isinstance(value, dict | list) and type(value) is type(old):
            restore_tuples(value, old)


def merge_options(config: Config, options: dict) -> None:
    """Put options into a config, one after another: mmengine itself takes one of two that are for the same section."""
    check_section(options, "task.model.options")
    own = copy.deepcopy(config._cfg_dict)
    for name, value in options.items():
        try:
            config.merge_from_dict({name: copy.deepcopy(value)})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PdiffError(
                f"task.model.options: {name} does not fit {config.filename} ({one_line(error)}). See what is there."
            ) from None
    restore_tuples(config._cfg_dict, own)


def find_config(config: str) -> Path:
    """Return the file that `task.model.config` names."""
    package, separator, name = config.partition("::")
    if not separator:
        if not Path(config).is_file():
            raise PdiffError(f"task.model.config: got {config!r}, which is no file. Check the path.")
        return Path(config)
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise PdiffError(f"task.model.config: got {config!r}, but there is no package {package!r}. Install it.")
    root = Path(next(iter(spec.submodule_search_locations)))
    name = name if name.endswith(".py") else f"{name}.py"
    places = [root / folder / name for folder in (".mim/configs", "configs")]
    for place in places:
        if place.is_file():
            return place
    where = next((place.parent for place in places if place.parent.is_dir()), root)
    raise PdiffError(f"task.model.config: got {config!r}, but {package} ships no such config. See {where}.")


def build_network(
    library: Library,
    config: Config,
    seed: int,
    checkpoint: str | None,
    channels_last: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the config's network with the weights of a checkpoint, or with the initial ones that it describes.

    Args:
        library: mmdet or mmseg.
        config: whose `model` is built.
        seed: of the initial weights.
        checkpoint: file or address.
        channels_last: the memory layout in which convolutions in bfloat16 are fast.
        reading: settings of `load_weights`.

    Raises:
        PdiffError: it is none of the library's networks, or its weights cannot be had or do not fit.
    """
    base = getattr(importlib.import_module(library.base[0]), library.base[1])
    with library.scope(), isolated_seed(derive_seed(seed, "network", 0)), silence():
        try:
            model = library.registry("MODELS").build(copy.deepcopy(config.model))  # some detectors write into it
        except Exception as error:  # whatever the class finds wrong with its arguments
            line = f"task.model.config: {config.filename}: {library.name} cannot build its model ({one_line(error)})."
            raise PdiffError(f"{line} Give a config of {library.name} that fits the installed version.") from None
        if not isinstance(model, base):
            kind = type(model).__name__
            raise PdiffError(f"task.model.config: {config.filename} builds a {kind}, expected a {library.network}.")
        if not checkpoint:
            init_weights(model)
    if checkpoint:
        load_weights(model, checkpoint, **(reading or {}))
    model.cfg = config  # where the library's own tools keep it
    return model.to(memory_format=torch.channels_last if channels_last else torch.preserve_format)


def init_weights(model: nn.Module) -> None:
    """Give the network the initial weights that its config describes; they may come from the network."""
    try:
        model.init_weights()
    except Exception as error:  # a download that fails raises many kinds
        raise PdiffError(
            f"task.model: the initial weights of the config cannot be had ({one_line(error)}). "
            "Give task.model.checkpoint, or switch them off: task.model.pretrained=false."
        ) from None


@contextlib.contextmanager
def silence():
    """Keep what the libraries print while they build things from the terminal."""
    logger = MMLogger.get_current_instance()
    levels = {handler: handler.level for handler in logger.handlers}
    for handler in levels:
        handler.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)


def one_line(error: BaseException) -> str:
    """Return an error's kind and text in one line; instead of no text, the line of code that raised it."""
    code = traceback.extract_tb(error.__traceback__)[-1:]
    text = ADDRESS.sub("", str(error)) or "".join(str(frame.line) for frame in code)
    return " ".join(f"{type(error).__name__}: {text}".split())
