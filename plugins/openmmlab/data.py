"""The splits of a task from the data loaders of an OpenMMLab config."""

import copy
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from pdiff_plugins.openmmlab.ahead import Ahead
from pdiff_plugins.openmmlab.conditions import Kind
from pdiff_plugins.openmmlab.draws import Part, Wrapper
from pdiff_plugins.openmmlab.keeping import keep_decoded
from pdiff_plugins.openmmlab.libraries import LOADERS, Library, one_line, silence
from pdiff_plugins.openmmlab.metainfo import check_metainfo, plain_datasets
from pdiff_plugins.openmmlab.scenes import compose_scenes
from torch.utils.data import DataLoader, Dataset

from pdiff import Conditions, PdiffError, call, check_keys, check_positive, check_section, generator, known

SOURCES = ("train", "val")
EMPTY = "need at least one array to concatenate"  # what mmengine says of a data set without any image


@dataclass(frozen=True)
class Split:
    """A data set, and the settings of its loader.

    Attributes:
        dataset: built by the library, its pipeline included.
        loader: the config's loader without its data set.
        kind: what networks are conditioned on; None where all are for the same.
        ahead: the batches of a training that somebody asks for by their steps; a copy of the split has its own.
    """

    dataset: Dataset
    loader: Mapping[str, Any]
    kind: Kind | None = None
    ahead: Ahead = field(init=False, compare=False, repr=False, default_factory=Ahead)

    def batches(self) -> DataLoader:
        """Return mmengine's loader, as the config describes it."""
        from mmengine.runner import Runner

        return Runner.build_dataloader({**self.loader, "dataset": Shared(self.dataset)})

    def pinned(self) -> "Split":
        """Return the split with batches in pinned memory, from which a GPU copies while it computes.

        A loader that says itself whether it does so is left as it is.
        """
        return replace(self, loader={"pin_memory": True, **self.loader})

    def parts(self, conditions: Conditions) -> list[tuple["Split", list[int]]]:
        """Return the images that some conditions `(n, C)` are about, and the places of these conditions.

        A part of the images has no data workers.
        """
        found: dict[Any, tuple[Split, list[int]]] = {}
        for place, values in enumerate(conditions.values):
            rows = self.kind.rows(self.dataset, values)
            key = None if rows is None else tuple(rows)
            if key not in found:
                found[key] = (self if rows is None else self.part(rows), [])
            found[key][1].append(place)
        return [*found.values()]

    def part(self, rows: Sequence[int]) -> "Split":
        """Return some of the images; they are loaded by the process itself."""
        loader = without(self.loader, "persistent_workers", "prefetch_factor")
        return replace(self, dataset=Part(self.dataset, rows), loader={**loader, "num_workers": 0})


class SampleError(PdiffError):
    """A sample that cannot be loaded; of a data worker's error torch makes another, a traceback before the line."""

    def __init__(self, line: str):
        super().__init__(line.rpartition(f"{type(self).__name__}: ")[2].strip())


class Shared(Wrapper):
    """A data set that is not copied when mmengine copies the settings of its loader."""

    def __deepcopy__(self, memo: dict) -> "Shared":
        return self

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except PdiffError:
            raise
        except Exception as error:  # a file that cannot be decoded, a pipeline that does not fit the data
            line = f"task.data: sample {index} cannot be loaded ({one_line(error)})."
            raise SampleError(f"{line} Check its file, and the pipeline in task.model.config.") from None


def build_splits(
    library: Library,
    config: Config,
    seed: int,
    train: dict | None = None,
    select: dict | None = None,
    test: dict | None = None,
    root: str | None = None,
    scenes: dict | None = None,
    memory: int | None = None,
    seen: bool = False,
    check: Callable[[Dataset, str], None] | None = None,
    conditional: bool = False,
) -> dict[str, Split]:
    """Return the splits `train`, `select` and `test`; no image of `select` is in another one.

    With `seen` comes a split of that name: training images, through the pipeline of `test`, as many as in `select`.

    Args:
        library: whose config it is.
        config: with the loaders `train_dataloader`, `test_dataloader` and, where `select` needs it, `val_dataloader`.
        seed: of the choice of images, and of scenes that name none.
        train: `{images: null}`, the number of images to take at random; null for all.
        select: `{source: val, images: null}`; `source` is the loader that the images come from, `train` or `val`.
            Those from `train` go through the pipeline of `test`.
        test: `{images: null}`.
        root: folder that takes the place of every `data_root` of the config; null keeps them.
        scenes: compose scenes of scikit-learn's digits with these settings and take their folder as root; null: none.
        memory: MiB in which decoded images and label maps are kept, in each process; 0: none. Null: 2048 in a run with
            conditions, whose networks all see the same images, else 0.
        seen: whether candidates are measured on training images, too.
        check: looks at each data set, built but not yet read, and the name of its split.
        conditional: whether the run has conditions.

    Raises:
        PdiffError: a data set cannot be built, has no image, or one that is not there.
    """
    train, select, test = train or {}, select or {}, test or {}
    check_keys(train, ("images",), "task.data.train")
    check_keys(select, ("source", "images"), "task.data.select")
    check_keys(test, ("images",), "task.data.test")
    if scenes is not None and root is not None:
        raise PdiffError(f"task.data: got root and scenes, expected one. For the data in {root}, give scenes=null.")
    if scenes is not None:
        root = call(compose_scenes, {"seed": seed, **scenes}, "task.data.scenes")
    if root is not None:
        use_root(config, Path(root))
    chooser = select_loader(config, select.get("source", "val"))
    loaders = {"train": config.train_dataloader, "select": chooser, "test": config.test_dataloader}
    datasets = {name: build_dataset(library, loader.get("dataset"), name, check) for name, loader in loaders.items()}

    def reduce(name: str, images: int | None, reserved: Collection[str]) -> None:
        datasets[name] = reduced(library, loaders[name].dataset, datasets[name], name, images, reserved, seed)

    reduce("select", select.get("images"), ())
    reserved, chosen = set(image_paths(datasets["select"])), len(datasets["select"])
    reduce("train", train.get("images"), reserved)
    reduce("test", test.get("images"), reserved)
    if seen:
        loaders["seen"] = seen_loader(config)
        datasets["seen"] = build_dataset(library, loaders["seen"].dataset, "seen", check)
        reduce("seen", None, reserved)
        reduce("seen", min(chosen, len(datasets["seen"])), reserved)
    keep_decoded(datasets.values(), memory, conditional)
    return {name: Split(dataset, without(loaders[name], "dataset")) for name, dataset in datasets.items()}


def use_root(config: Config, root: Path) -> None:
    """Make a folder the root of every data set of the config, and of the annotations of its evaluators."""
    for key in LOADERS:
        for dataset in plain_datasets(config[key].dataset) if config.get(key) else ():
            if "data_root" not in dataset:
                line = f"task.data.root: got {root}, but the data set of {key} has no data_root."
                raise PdiffError(f"{line} Leave it out, and change the config.")
            dataset["data_root"] = f"{root}/"
    for loader, name in (("val_dataloader", "val_evaluator"), ("test_dataloader", "test_evaluator")):
        for evaluator in evaluators(config, name) if config.get(loader) else ():
            if "ann_file" in evaluator:
                evaluator["ann_file"] = str(root / config[loader].dataset.ann_file)


def evaluators(config: Config, name: str) -> Sequence[Mapping[str, Any]]:
    """Return the settings of the config's evaluators of a name, one or several; none where it has none."""
    found = config.get(name) or []
    return found if isinstance(found, list | tuple) else [found]


def evaluator_settings(config: Config, metric: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return some settings of the config's evaluator.

    Args:
        config: with a `test_evaluator`, one or several.
        metric: class of the evaluator.
        keys: the settings; those that the config leaves out are left out.

    Raises:
        PdiffError: the config has no such evaluator.
    """
    every = evaluators(config, "test_evaluator")
    found = next((each for each in every if str(each.get("type")).rpartition(".")[2] == metric), None)
    if found is None:
        raise PdiffError(
            f"task.model.config: its test_evaluator has no {metric}, which the candidates are measured with. "
            f"Add {{type: {metric}}}, and the data that it needs."
        )
    return {key: found[key] for key in keys if found.get(key) is not None}


def without(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return settings without some keys."""
    return {key: value for key, value in settings.items() if key not in keys}


def select_loader(config: Config, source: str) -> Mapping[str, Any]:
    """Return the loader of the split `select`: the config's own, or images of `train` as `test` sees them."""
    if source not in SOURCES:
        raise PdiffError(f"task.data.select.source: got {source!r}. {known(str(source), SOURCES)}")
    if source == "val":
        if not config.get("val_dataloader"):
            raise PdiffError("task.data.select.source: got 'val', but the config has no val_dataloader. Use train.")
        return config.val_dataloader
    if "pipeline" not in next(plain_datasets(config.test_dataloader.dataset)):
        raise PdiffError("task.data.select.source: got 'train', but the data set of test has no pipeline. Use val.")
    return seen_loader(config)


def seen_loader(config: Config) -> Mapping[str, Any]:
    """Return a loader of the training images as `test` sees them; data sets inside a wrapper come without it."""
    loader = copy.deepcopy(config.test_dataloader)
    pipeline = next(plain_datasets(config.test_dataloader.dataset)).get("pipeline")
    loader.dataset = seen_dataset(config.train_dataloader.dataset, pipeline)
    return loader


def seen_dataset(settings: Any, pipeline: Any) -> Any:
    """Return the settings of a training data set with another pipeline, out of its wrappers."""
    if "dataset" in settings:
        return seen_dataset(settings.dataset, pipeline)
    if "datasets" in settings:
        settings = copy.deepcopy(settings)
        settings.datasets = [seen_dataset(inner, pipeline) for inner in settings.datasets]
        return settings
    settings = copy.deepcopy(settings)
    settings.pipeline = pipeline
    return settings


def build_dataset(
    library: Library,
    settings: Mapping[str, Any],
    name: str,
    check: Callable[[Dataset, str], None] | None = None,
) -> Dataset:
    """Build a data set as the library does, and check that it has images and that they are there."""
    check_section(settings, f"{name}_dataloader.dataset")
    for plain in plain_datasets(settings):
        look_at(library, plain, name, check)
    try:
        with library.scope(), silence():
            dataset = library.registry("DATASETS").build(copy.deepcopy(settings))
            dataset.full_init()
    except PdiffError:
        raise
    except Exception as error:  # missing files, broken annotations, unknown types
        if EMPTY in str(error):
            raise without_images(settings, name) from None
        line = f"task.data: the data set of {name} cannot be built ({one_line(error)})."
        raise PdiffError(f"{line} Check its data_root, ann_file and metainfo in task.model.config.") from None
    if len(dataset) == 0:
        raise without_images(settings, name)
    for path in image_paths(dataset):
        if path and "://" not in path and not os.path.exists(path):
            remedy = "Write / for the backslash." if "\\" in path else "Check data_prefix."
            raise PdiffError(f"task.data: the data set of {name} names {path}, which is not there. {remedy}")
    return dataset


def look_at(
    library: Library, settings: Mapping[str, Any], name: str, check: Callable[[Dataset, str], None] | None
) -> None:
    """Check what a data set calls its classes and, if it can be built unread, its files."""
    check_section(settings, f"{name}_dataloader.dataset")
    check_metainfo(settings.get("metainfo") or {}, name)
    try:
        with library.scope(), silence():
            dataset = library.registry("DATASETS").build({**copy.deepcopy(settings), "lazy_init": True})
    except Exception:  # the building in earnest says what is wrong; other classes are never unread
        return
    if isinstance(dataset, BaseDataset):
        check_metainfo(dataset.metainfo, name)
        if check is not None:
            check(dataset, name)


def without_images(settings: Mapping[str, Any], name: str) -> PdiffError:
    """Return the error of a data set that has none."""
    annotations, folder = settings.get("ann_file"), (settings.get("data_prefix") or {}).get("img_path")
    if not annotations and folder:
        where = os.path.join(settings.get("data_root") or "", folder)
        line = f"task.data: the data set of {name} has no image ({where})."
        return PdiffError(f"{line} Check data_root, data_prefix and img_suffix in task.model.config.")
    line = f"task.data: the data set of {name} has no image ({annotations or settings.get('data_root')})."
    return PdiffError(f"{line} Check the annotations, and that metainfo names the classes in them.")


def image_paths(dataset: Dataset) -> list[str]:
    """Return the path of every image."""
    return [image_path(dataset, index) for index in range(len(dataset))]


def image_path(dataset: Dataset, index: int) -> str:
    """Return the path of an image; of a wrapper that mixes several into one, no path."""
    try:
        path = str(dataset.get_data_info(index).get("img_path", ""))
    except (AttributeError, NotImplementedError):
        return ""
    return os.path.realpath(path) if path and "://" not in path else path


def choose(dataset: Dataset, images: int | None, seed: int, name: str) -> Sequence[int]:
    """Return the indices of `images` samples drawn at random, in order; all for None."""
    if images is None:
        return range(len(dataset))
    check_positive(f"task.data.{name}", images=images)
    if images > len(dataset):
        raise PdiffError(f"task.data.{name}.images: got {images}, expected at most {len(dataset)}, which are there.")
    order = torch.randperm(len(dataset), generator=generator(seed, "images", name))
    return sorted(order[:images].tolist())


def reduced(
    library: Library,
    settings: Mapping[str, Any],
    whole: Dataset,
    name: str,
    images: int | None,
    reserved: Collection[str],
    seed: int,
) -> Dataset:
    """Return a data set without the reserved images, and with some of the others, drawn at random.

    Args:
        library: whose data set it is.
        settings: of the data set; a wrapper is built anew around the rest of what is inside.
        whole: the data set, which may be changed.
        name: of the split.
        images: how many; None for all.
        reserved: paths of images that are left out.
        seed: of the choice.
    """
    settings = copy.deepcopy(settings)
    inner = list(plain_datasets(settings))
    wrapped = inner[0] is not settings
    datasets = [build_dataset(library, plain, name) for plain in inner] if wrapped else [whole]
    places = [(part, index) for part, dataset in enumerate(datasets) for index in range(len(dataset))]
    rest = [place for place in places if image_path(datasets[place[0]], place[1]) not in reserved]
    if not rest:
        raise PdiffError(
            f"task.data.select: takes all images of {name}, as both are the same files. "
            "Give task.data.select.images, the number of those that it may take."
        )
    taken = [rest[number] for number in choose(rest, images, seed, name)]
    if taken == places:
        return whole
    parts = [[index for number, index in taken if number == part] for part in range(len(inner))]
    if not wrapped:
        return keep(whole, parts[0], name)
    for plain, indices in zip(inner, parts, strict=True):
        plain["indices"] = subset(plain.get("indices"), indices)
    return build_dataset(library, settings, name)


def subset(own: int | Sequence[int] | None, indices: Sequence[int]) -> list[int]:
    """Return which images of its annotations a data set shall have, to keep `indices` of those that it has now.

    Args:
        own: mmengine's `indices` of the data set: its images, or the number of the first, or of the last where below 0.
        indices: positions among them.
    """
    if isinstance(own, int):
        return [index + min(own, 0) for index in indices]
    return [own[index] for index in indices] if own is not None else list(indices)


def keep(dataset: Dataset, indices: Sequence[int], name: str) -> Dataset:
    """Reduce a data set to the samples of `indices`, and return it."""
    try:
        dataset.get_subset_(list(indices))
    except (AttributeError, NotImplementedError):
        kind = type(dataset).__name__
        raise PdiffError(
            f"task.data.{name}: cannot take images out of a {kind}. Give the config one of mmengine's data sets, "
            "or task.data.select.source=val with images that are not in train."
        ) from None
    return dataset
