"""Image data as tensors: scikit-learn digits, torchvision datasets, image folders, `.npz` arrays; three splits."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import Registry
from torch import Tensor
from torch.nn.functional import interpolate

from pdiff import PdiffError, build, known

DATASETS = Registry("dataset", scope="pdiff")
Arrays = tuple[Tensor, Tensor]


class Split:
    """The images and labels of one split.

    Args:
        images: `(S, C, H, W)`, uint8 or float32 in about [0, 1].
        labels: `(S,)`, int64.
        classes: number of classes.
        size: side in pixels of what the network sees.
        eval_batch: images per batch of the evaluation.
        device: where batches are put.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: int, size: int, eval_batch: int, device: torch.device):
        self.images, self.labels, self.classes = images, labels, classes
        self.size, self.eval_batch, self.device = size, eval_batch, device
        self.mean = torch.zeros(images.shape[1])
        self.std = torch.ones(images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, rows: Tensor | slice) -> Tensor:
        """Return normalised images `(B, C, H, W)` in their stored size."""
        images = self.images[rows].to(self.device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        return (images - mean[:, None, None]) / std[:, None, None]

    def resized(self, images: Tensor) -> Tensor:
        """Return images `(B, C, size, size)`."""
        if images.shape[-2:] == (self.size, self.size):
            return images
        return interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)

    def first(self, count: int) -> "Split":
        """Return a split of the first `count` images alone."""
        few = copy.copy(self)
        few.images, few.labels = self.images[:count], self.labels[:count]
        return few

    def num_batches(self) -> int:
        """Return the number of evaluation batches."""
        return -(-len(self) // self.eval_batch)

    def batches(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, network inputs and labels, in order."""
        for start in range(0, len(self), self.eval_batch):
            rows = slice(start, min(start + self.eval_batch, len(self)))
            yield rows, self.resized(self.pixels(rows)), self.labels[rows].to(self.device)


def build_splits(cfg: dict, eval_batch: int, device: torch.device, seed: int) -> dict[str, Split]:
    """Return the splits `train`, `select` and `test`, their images as they are; `seed` is the run's."""
    arrays, size = build(DATASETS, cfg, "task.data", {"run_seed": seed})
    classes = 1 + max(int(labels.max()) for _, labels in arrays.values())
    return {name: Split(*pair, classes, size, eval_batch, device) for name, pair in arrays.items()}


def build_data(cfg: dict, eval_batch: int, device: torch.device, seed: int) -> dict[str, Split]:
    """Return the splits `train`, `select` and `test`, normalised by the moments of (at most 10,000 of) `train`."""
    splits = build_splits(cfg, eval_batch, device, seed)
    sample = splits["train"].pixels(slice(0, 10_000))
    mean, std = sample.mean((0, 2, 3)).cpu(), sample.std((0, 2, 3)).cpu()
    if not (std > 0).all():
        raise PdiffError("task.data: a channel of the training images never changes. Leave it out of the images.")
    for split in splits.values():
        split.mean, split.std = mean, std
    return splits


def stratified(images: Tensor, labels: Tensor, first: int, seed: int, where: str) -> tuple[Arrays, Arrays]:
    """Return two parts with equal shares of each class, the first of `first` images."""
    from sklearn.model_selection import train_test_split

    if not 0 < first < len(labels):
        raise PdiffError(f"{where}: got {first}, expected 1 to {len(labels) - 1}, as there are {len(labels)} images.")
    rows = np.arange(len(labels))
    try:
        a, b = train_test_split(rows, train_size=first, stratify=labels.numpy(), random_state=seed % 2**32)
    except ValueError as error:
        raise PdiffError(f"{where}: got {first}, which cannot be shared among the classes ({error}).") from None
    return (images[a], labels[a]), (images[b], labels[b])


def with_select(train: Arrays, test: Arrays, select: int, limit: int | None, seed: int) -> dict[str, Arrays]:
    """Return three splits: `select` images are taken out of the training images; `limit` of the rest are kept."""
    chosen, rest = stratified(*train, select, seed, "task.data.select")
    if limit not in (None, len(rest[1])):
        rest, _ = stratified(*rest, limit, seed, "task.data.train")
    return {"train": rest, "select": chosen, "test": test}


@DATASETS.register_module(name="digits")
def digits(
    run_seed: int, size: int = 32, noise: float = 0.0, train: int = 500, select: int = 297, seed: int | None = None
):
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 pixels; what `train` and `select` leave is `test`.

    Args:
        run_seed: seed of the run.
        size: side in pixels of what the network sees.
        noise: standard deviation of Gaussian noise that is added to every image once, in units of full white.
        train: number of training images.
        select: number of images that choose the best candidate.
        seed: of the splits and the noise; default: that of the run.
    """
    from sklearn.datasets import load_digits

    seed = run_seed if seed is None else seed
    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:, None] / 16
    images = images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(raw.target).long()
    training, rest = stratified(images, labels, train, seed, "task.data.train")
    chosen, test = stratified(*rest, select, seed, "task.data.select")
    return {"train": training, "select": chosen, "test": test}, size


@DATASETS.register_module(name="npz")
def npz(run_seed: int, path: str, size: int, select: int, train: int | None = None, seed: int | None = None):
    """Load `x_train`, `y_train`, `x_test`, `y_test` of an `.npz` file (images `(S, H, W, C)` or `(S, H, W)`, uint8).

    Args:
        run_seed: seed of the run.
        path: the file.
        size: side in pixels of what the network sees.
        select: number of training images that choose the best candidate instead.
        train: number of training images to keep; default: all.
        seed: of the splits; default: that of the run.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except Exception as error:  # numpy raises many kinds over a damaged file
        reason = " ".join(str(error).split())
        message = f"cannot be used ({reason}), expected arrays x_train, y_train, x_test, y_test without pickle"
        raise PdiffError(f"task.data.path: {path} {message}.") from None
    pairs = [_as_tensors(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    return with_select(*pairs, select, train, run_seed if seed is None else seed), size


def _as_tensors(images: np.ndarray, labels: np.ndarray) -> Arrays:
    images = images[..., None] if images.ndim == 3 else images
    fits = images.dtype == np.uint8 and images.ndim == 4
    if not fits or labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        found = f"images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}"
        raise PdiffError(f"task.data: got {found}, expected uint8 (S, H, W, C) and one integer label each.")
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64))


@DATASETS.register_module(name="torchvision")
def torchvision_data(
    run_seed: int,
    name: str,
    root: str,
    size: int,
    select: int,
    download: bool = False,
    train: int | None = None,
    seed: int | None = None,
):
    """Load a torchvision dataset that has a training and a test part (CIFAR10, CIFAR100, STL10, Flowers102, ...).

    Args:
        run_seed: seed of the run.
        name: the class in `torchvision.datasets`.
        root: its folder.
        size: side in pixels of what the network sees, and of images that come in many sizes.
        select: number of training images that choose the best candidate instead.
        download: fetch the data if it is not there.
        train: number of training images to keep; default: all.
        seed: of the splits; default: that of the run.
    """
    import inspect

    from torchvision import datasets

    if name not in datasets.__all__:
        raise PdiffError(f"task.data.name: got {name!r}. {known(name, datasets.__all__)}")
    dataset = getattr(datasets, name)
    by_flag = "train" in inspect.signature(dataset).parameters
    first = "trainval" if name == "OxfordIIITPet" else "train"
    parts = [{"train": True}, {"train": False}] if by_flag else [{"split": first}, {"split": "test"}]
    try:
        pairs = [_decode(dataset(root, download=download, **part), size) for part in parts]
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PdiffError(f"task.data: torchvision's {name} cannot be loaded from {root} ({reason}).") from None
    return with_select(*pairs, select, train, run_seed if seed is None else seed), size


@DATASETS.register_module(name="folder")
def folder(run_seed: int, path: str, size: int, select: int, train: int | None = None, seed: int | None = None):
    """Load images from `path/train/<class>/*` and `path/test/<class>/*` (or `val`), decoded once into memory.

    Args:
        run_seed: seed of the run.
        path: the folder.
        size: side in pixels: images that are no squares of one size are resized to it on the shorter side and cropped
            at the centre.
        select: number of training images that choose the best candidate instead.
        train: number of training images to keep; default: all.
        seed: of the splits; default: that of the run.
    """
    from torchvision.datasets import ImageFolder

    test = next((part for part in ("test", "val") if (Path(path) / part).is_dir()), None)
    if test is None or not (Path(path) / "train").is_dir():
        raise PdiffError(f"task.data.path: got {path!r}, expected a folder with train/ and test/ (or val/) in it.")
    try:
        parts = [ImageFolder(str(Path(path) / part), loader=_load_image) for part in ("train", test)]
    except FileNotFoundError as error:
        raise PdiffError(f"task.data.path: {error}.") from None
    here, there = (", ".join(part.classes) for part in parts)
    if here != there:
        raise PdiffError(f"task.data.path: got the classes {there} in {test}/, expected {here} as in train/.")
    pairs = [_decode(part, size) for part in parts]
    return with_select(*pairs, select, train, run_seed if seed is None else seed), size


def _load_image(path: str):
    from torchvision.datasets.folder import pil_loader

    try:
        return pil_loader(path)
    except OSError as error:
        raise PdiffError(f"{path}: cannot be read as an image ({error}). Mend it, or take it away.") from None


def _decode(dataset, size: int) -> Arrays:
    """Return all images of a torchvision dataset, resized and cropped unless they are squares of one size."""
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    images, labels = zip(*((image, label) for image, label in dataset), strict=True)
    if len({(*image.size, image.mode) for image in images}) > 1 or images[0].width != images[0].height:
        images = [center_crop(resize(image.convert("RGB"), size, antialias=True), [size, size]) for image in images]
    return torch.stack([pil_to_tensor(image) for image in images]), torch.tensor(labels, dtype=torch.int64)
