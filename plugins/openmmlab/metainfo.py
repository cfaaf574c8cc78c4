"""What a config calls the classes of its data, checked before anything is built."""

from collections.abc import Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from pdiff import PdiffError

PALETTES = ("random", "coco", "voc", "citys")  # texts that mmdet knows


def plain_datasets(settings: Any) -> Iterator[Any]:
    """Yield the settings of the data sets inside wrappers (`dataset`, `datasets`); those of a plain one itself."""
    if "dataset" in settings:
        yield from plain_datasets(settings["dataset"])
    elif "datasets" in settings:
        for inner in settings["datasets"]:
            yield from plain_datasets(inner)
    else:
        yield settings


def are_names(classes: Any) -> bool:
    """Say whether classes are a list of names, or of numbers in their place, each once."""
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str | int) for name in classes):
        return False
    return 0 < len(classes) == len(set(classes))


def check_metainfo(metainfo: Mapping[str, Any], name: str) -> None:
    """Raise a `PdiffError` unless classes are names, and a palette is colours; a text may be a file with a name a line.

    Args:
        metainfo: of a data set.
        name: of its split.
    """
    if not isinstance(metainfo, Mapping):
        line = f"task.model.config: metainfo of the data set of {name}: got {metainfo!r}, expected a section."
        raise PdiffError(f"{line} Write {{classes: [...]}}.")
    classes, palette = metainfo.get("classes"), metainfo.get("palette")
    if isinstance(classes, str) and not Path(classes).is_file():
        line = f"got the text {classes!r}, which is no file, expected a list of names"
        raise wrong(name, "classes", line, f"Write [{classes!r}], or in Python ({classes!r},), with the comma.")
    if "classes" in metainfo and not isinstance(classes, str) and not are_names(classes):
        got = list(classes) if isinstance(classes, tuple) else classes
        raise wrong(name, "classes", f"got {got}, expected some names, each once", "Mend it.")
    if isinstance(palette, str) and palette not in PALETTES and not Path(palette).is_file():
        raise wrong(name, "palette", f"got the text {palette!r}, expected a list of colours", "Write [[r, g, b], ...].")
    if isinstance(palette, list | tuple) and any(isinstance(colour, Number) for colour in palette):
        line = f"got {list(palette)}, expected a colour for each class"
        raise wrong(name, "palette", line, "Write [[r, g, b], ...], of one class with the comma ((r, g, b),).")


def wrong(name: str, key: str, problem: str, remedy: str) -> PdiffError:
    """Return the error of a key of the metainfo."""
    return PdiffError(f"task.model.config: metainfo.{key} of the data set of {name}: {problem}. {remedy}")
