"""A config as a library ships it, made fit for other data: its classes, and no weights from the internet."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from pdiff_plugins.openmmlab.metainfo import plain_datasets

from pdiff import PdiffError

OTHER = ("backbone", "rpn_head")  # parts of a model whose `num_classes` does not count the classes of the data
COUNTS = ("num_classes", "num_things_classes", "num_stuff_classes")
WHERE = "task.model.classes"


def set_classes(config: Config, loaders: Sequence[str], classes: Sequence[str]) -> None:
    """Give every data set of the config these classes, and every head their number.

    Args:
        config: changed in place.
        loaders: names of its loaders.
        classes: names, in the order of the labels.

    Raises:
        PdiffError: they are no names, or a loss weighs the classes of the config one by one.
    """
    names = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    if not names or not classes or len(set(classes)) < len(classes):
        raise PdiffError(f"{WHERE}: got {classes!r}, expected a list of names, each once.")
    for key in loaders:
        for dataset in plain_datasets(config[key].dataset) if config.get(key) else ():
            dataset["metainfo"] = {"classes": tuple(classes)}
    unfit = list(recount(config.model, len(classes), None, "model"))
    if unfit:
        raise PdiffError(
            f"{WHERE}: {' and '.join(unfit)} {'has' if len(unfit) == 1 else 'have'} weights of other classes. "
            f"Give {len(classes)}, or null, as task.model.options.{unfit[0]}{' and so on' if unfit[1:] else ''}."
        )


def recount(section: Any, count: int, before: int | None, where: str) -> Iterator[str]:
    """Set the number of classes in a section of a model, and in all that is inside; yield where weights do not fit it.

    Args:
        section: nested sections and lists, changed in place.
        count: the new number.
        before: the number in the section around this one.
        where: name of the section.
    """
    if isinstance(section, Mapping):
        counts = [section[key] for key in COUNTS if key in section]
        before = section.get("num_classes", sum(counts)) if counts else before
    for key, value in list(section.items() if isinstance(section, Mapping) else enumerate(section)):
        if key in COUNTS:
            section[key] = 0 if key == "num_stuff_classes" else count
        elif key == "class_weight" and isinstance(value, list | tuple):
            section[key] = new_weights(value, count, before)
            if section[key] is None:
                yield f"{where}.{key}"
        elif key not in OTHER and isinstance(value, Mapping | list | tuple):
            yield from recount(value, count, before, f"{where}.{key}")


def new_weights(weights: Sequence[float], count: int, before: int | None) -> list[float] | None:
    """Return the weights of `count` classes, the same for each as before; None where they differ by class.

    One behind those of the classes, for no object, stays.
    """
    if len(weights) == count == before:
        return list(weights)
    if before is None or len(weights) < before or len(set(weights[:before])) > 1:
        return None
    return [weights[0]] * count + list(weights[before:])


def drop_pretrained(section: Any) -> None:
    """Take out, in place, whatever makes a part of a model begin with weights of a file or of the internet."""
    for key, value in list(section.items() if isinstance(section, Mapping) else enumerate(section)):
        if key == "pretrained":
            section[key] = False if isinstance(value, bool) else None
        elif key == "init_cfg" and isinstance(value, list | tuple):
            section[key] = [each for each in value if not is_pretrained(each)] or None
        elif key == "init_cfg" and is_pretrained(value):
            section[key] = None
        elif isinstance(value, Mapping | list | tuple):
            drop_pretrained(value)


def is_pretrained(settings: Any) -> bool:
    """Say whether initial weights are those of a file."""
    return isinstance(settings, Mapping) and "checkpoint" in settings
