"""Image data as tensors: scikit-learn digits, torchvision datasets, image folders, `.npz` arrays; three splits."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import Registry
from pdiff_plugins.images.decoding import Decoder
from pdiff_plugins.images.folders import Images, check_classes, find_images, listed, notes, ordered
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pdiff import PdiffError, build, check_positive, known, progress

DATASETS = Registry("dataset", scope="pdiff")
Arrays = tuple[Tensor, Tensor]
LARGE = 256  # side in pixels up to which squares of one size are kept as they are
VALUES = 2**26  # of images whose moments are taken at once, 256 MiB
SHARE = 0.25  # of the free memory of a GPU, which the images of all splits may take


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU that it goes to from the host is not waited for."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def at(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    """Return some rows of a tensor, wherever it lies; a GPU is not waited for when it is told which."""
    return tensor[rows if isinstance(rows, slice) else sent(rows, tensor.device)]


class Split:
    """The images and labels of one split.

    Args:
        images: `(S, C, H, W)`, uint8 or float32 in about [0, 1], on the device or, where they do not fit, on the CPU.
        labels: `(S,)`, int64, on the CPU.
        classes: number of classes.
        size: side in pixels of what the network sees.
        eval_batch: images per batch of the evaluation.
        device: where batches are put.
        names: of the classes, in the order of the labels, where the data name them.

    Attributes:
        eval_networks: candidates that are evaluated at once.
        answers: the labels, on the device.
        mean, std: of each channel, by which images are normalised `(C,)`, on the device.
    """

    eval_networks = 1

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: int,
        size: int,
        eval_batch: int,
        device: torch.device,
        names: Sequence[str] = (),
    ):
        self.images, self.labels, self.classes, self.names = images, labels, classes, names
        self.size, self.eval_batch, self.device = size, eval_batch, device
        self.answers = labels.to(device)
        self.mean = torch.zeros(images.shape[1], device=device)
        self.std = torch.ones(images.shape[1], device=device)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, rows: Tensor | slice) -> Tensor:
        """Return normalised images `(B, C, H, W)` in their stored size."""
        images = at(self.images, rows).to(self.device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

    def resized(self, images: Tensor) -> Tensor:
        """Return images `(B, C, size, size)`."""
        if images.shape[-2:] == (self.size, self.size):
            return images
        return interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)

    def first(self, count: int) -> "Split":
        """Return a split of the first `count` images alone."""
        return self.take(slice(0, count))

    def take(self, rows: Tensor | slice) -> "Split":
        """Return a split of some of the images alone, in the order of `rows`."""
        few = copy.copy(self)
        few.images, few.labels, few.answers = at(self.images, rows), self.labels[rows], at(self.answers, rows)
        return few

    def rows_of(self, labels: Sequence[int]) -> Tensor:
        """Return the rows of the images of some classes, in order."""
        return torch.isin(self.labels, torch.tensor(labels)).nonzero().flatten()

    def num_batches(self) -> int:
        """Return the number of evaluation batches."""
        return -(-len(self) // self.eval_batch)

    def batches(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, network inputs and labels, in order."""
        for start in range(0, len(self), self.eval_batch):
            rows = slice(start, min(start + self.eval_batch, len(self)))
            yield rows, self.resized(self.pixels(rows)), self.answers[rows]


def placed(arrays: Mapping[str, Arrays], device: torch.device) -> dict[str, Arrays]:
    """Return arrays, the images of all of them on the device: on a GPU only where they take no more than `SHARE`."""
    size = sum(images.nbytes for images, _ in arrays.values())
    if device.type == "cuda" and size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return dict(arrays)
    return {name: (images.to(device), labels) for name, (images, labels) in arrays.items()}


def build_splits(cfg: dict, eval_batch: int, device: torch.device, seed: int) -> dict[str, Split]:
    """Return the splits `train`, `select` and `test`, their images as they are; `seed` is the run's."""
    arrays, size, *names = build(DATASETS, cfg, "task.data", {"run_seed": seed})
    check_positive("task.data", size=size)
    classes = 1 + max(int(labels.max()) for _, labels in arrays.values())
    arrays = placed(arrays, device).items()
    return {name: Split(*pair, classes, size, eval_batch, device, *names) for name, pair in arrays}


def moments(split: Split, most: int = VALUES) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(C,)` of each channel of a split, with `most` values in memory at a time."""
    axes, each = (0, 2, 3), max(1, most // split.images[0].numel())
    if len(split) <= each:
        pixels = split.pixels(slice(None))
        return pixels.mean(axes), pixels.std(axes)
    parts = [slice(start, start + each) for start in range(0, len(split), each)]
    count = len(split) * split.images[0, 0].numel()
    mean = sum(split.pixels(rows).sum(axes, dtype=torch.float64) for rows in parts) / count
    squares = sum((split.pixels(rows) - mean[:, None, None]).square().sum(axes) for rows in parts)
    return mean.float(), (squares / (count - 1)).sqrt().float()


def build_data(cfg: dict, eval_batch: int, device: torch.device, seed: int) -> dict[str, Split]:
    """Return the splits `train`, `select` and `test`, normalised by the moments of (at most 10,000 of) `train`."""
    splits = build_splits(cfg, eval_batch, device, seed)
    mean, std = moments(splits["train"].first(10_000))
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


def check_parts(train: Arrays, test: Arrays) -> None:
    """Raise a `PdiffError` when a part has no image, or the test images have channels or labels that no other has."""
    for name, (images, labels) in (("training", train), ("test", test)):
        if not len(labels):
            raise PdiffError(f"task.data: got no {name} image, expected some. Give some.")
        if labels.min() < 0:
            raise PdiffError(f"task.data: got the label {labels.min()} of a {name} image, expected 0 or more. Mend it.")
        if images.shape[1] != train[0].shape[1]:
            got = f"got {images.shape[1]} channels of the test images, expected {train[0].shape[1]} as in training"
            raise PdiffError(f"task.data: {got}. Make them alike.")
    new = test[1][~torch.isin(test[1], train[1])].unique().tolist()
    if new:
        line = f"task.data: got test images with the labels {listed(list(map(str, new)))}, which no training image has."
        raise PdiffError(f"{line} Give both the same classes.")


def with_select(train: Arrays, test: Arrays, select: int, limit: int | None, seed: int) -> dict[str, Arrays]:
    """Return three splits: `select` images are taken out of the training images; `limit` of the rest are kept."""
    check_parts(train, test)
    chosen, rest = stratified(*train, select, seed, "task.data.select")
    if limit not in (None, len(rest[1])):
        rest, _ = stratified(*rest, limit, seed, "task.data.train")
    return {"train": rest, "select": chosen, "test": test}


def only(images: Tensor, labels: Tensor, classes: Sequence[int]) -> Arrays:
    """Return the images of some classes alone, in order, each label the place of its class among these.

    Raises:
        PdiffError: no class, one twice, or one without an image.
    """
    there = labels.unique().tolist()
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(there):
        line = f"got {list(classes)}, expected different labels of {there[0]} to {there[-1]}, one at least."
        raise PdiffError(f"task.data.classes: {line} Mend the list, or leave it out.")
    wanted = torch.tensor(classes)
    rows = torch.isin(labels, wanted).nonzero().flatten()
    return images[rows], (labels[rows, None] == wanted).long().argmax(1)


def named(
    pairs: Sequence[Arrays], classes: Sequence[int] | None, select: int, limit: int | None, seed: int, size: int
) -> tuple:
    """Return the splits of training and test images, and their size; where some classes alone are kept, their names."""
    if classes is None:
        return with_select(*pairs, select, limit, seed), size
    check_parts(*pairs)
    pairs = [only(*pair, classes) for pair in pairs]
    return with_select(*pairs, select, limit, seed), size, [str(label) for label in classes]


@DATASETS.register_module(name="digits")
def digits(
    run_seed: int,
    size: int = 32,
    noise: float = 0.0,
    train: int = 500,
    select: int = 297,
    seed: int | None = None,
    classes: Sequence[int] | None = None,
):
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 pixels; what `train` and `select` leave is `test`.

    Args:
        run_seed: seed of the run.
        size: side in pixels of what the network sees.
        noise: standard deviation of Gaussian noise that is added to every image once, in units of full white.
        train: number of training images.
        select: number of images that choose the best candidate.
        seed: of the splits and the noise; default: that of the run.
        classes: the digits to keep, `[0, 1, 2]`, in the order of the labels they get; default: all.
    """
    from sklearn.datasets import load_digits

    seed = run_seed if seed is None else seed
    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:, None] / 16
    images = images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(raw.target).long()
    if classes is not None:
        images, labels = only(images, labels, classes)
    training, rest = stratified(images, labels, train, seed, "task.data.train")
    chosen, test = stratified(*rest, select, seed, "task.data.select")
    splits = {"train": training, "select": chosen, "test": test}
    return (splits, size) if classes is None else (splits, size, [str(digit) for digit in classes])


@DATASETS.register_module(name="npz")
def npz(
    run_seed: int,
    path: str,
    size: int,
    select: int,
    train: int | None = None,
    seed: int | None = None,
    classes: Sequence[int] | None = None,
):
    """Load `x_train`, `y_train`, `x_test`, `y_test` of an `.npz` file (images `(S, H, W, C)` or `(S, H, W)`, uint8).

    Args:
        run_seed: seed of the run.
        path: the file.
        size: side in pixels of what the network sees.
        select: number of training images that choose the best candidate instead.
        train: number of training images to keep; default: all.
        seed: of the splits; default: that of the run.
        classes: the labels to keep, in the order of the labels they get; default: all.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except Exception as error:  # numpy raises many kinds over a damaged file
        reason = " ".join(str(error).split())
        message = f"cannot be used ({reason}), expected arrays x_train, y_train, x_test, y_test without pickle"
        raise PdiffError(f"task.data.path: {path} {message}.") from None
    pairs = [_as_tensors(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    return named(pairs, classes, select, train, run_seed if seed is None else seed, size)


def _as_tensors(images: np.ndarray, labels: np.ndarray) -> Arrays:
    images = images[..., None] if images.ndim == 3 else images
    fits = images.dtype == np.uint8 and images.ndim == 4
    if not fits or labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        found = f"images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}"
        raise PdiffError(f"task.data: got {found}, expected uint8 (S, H, W, C) and one integer label each.")
    if images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
        raise PdiffError(f"task.data: got images {images.shape}, expected (S, H, W, C). Put the channels last.")
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
    classes: Sequence[int] | None = None,
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
        classes: the labels to keep, in the order of the labels they get; default: all.
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
    return named(pairs, classes, select, train, run_seed if seed is None else seed, size)


@DATASETS.register_module(name="folder")
def folder(
    run_seed: int,
    path: str,
    size: int,
    select: int,
    train: int | None = None,
    seed: int | None = None,
    order: str | list = "name",
    background: str = "white",
    values: list | None = None,
):
    """Load images from `path/train/<class>/*` and `path/test/<class>/*` (or `val`), decoded once into memory.

    Args:
        run_seed: seed of the run.
        path: the folder.
        size: side in pixels: images that are no squares of one size, of at most 256 pixels or twice the `size`, are
            resized to it on the shorter side and cropped at the centre.
        select: number of training images that choose the best candidate instead.
        train: number of training images to keep; default: all.
        seed: of the splits; default: that of the run.
        order: of the classes, which numbers the labels: `name` as torchvision has it (0, 1, 10, 2), `number` for the
            numbers in the names (0, 1, 2, 10), or a list of the names.
        background: colour that transparent pixels lie on.
        values: `[black, white]` of images with more than 8 bits; default: 0 and 65535 of 16 bits, 0 and 1 of floats
            that lie in between.
    """
    root = Path(path)
    test = next((part for part in ("test", "val") if (root / part).is_dir()), None)
    if test is None or not (root / "train").is_dir():
        raise PdiffError(f"task.data.path: got {path!r}, expected a folder with train/ and test/ (or val/) in it.")
    parts, decoder = [find_images(root / part) for part in ("train", test)], Decoder(background, values)
    check_classes(*parts)
    classes = ordered(list(parts[0].files), order)
    pairs = [_decode(Images(part, classes, decoder), size) for part in parts]
    decoder.check()
    for note in notes(parts, classes, order, decoder):
        logging.getLogger("pdiff").warning("task.data: %s", note)
    return with_select(*pairs, select, train, run_seed if seed is None else seed), size, classes


def _decode(dataset, size: int) -> Arrays:
    """Return all images of a dataset, resized and cropped unless they are squares of one size, and not large.

    Images are made small one by one: photographs never lie in memory together.
    """
    from torchvision.transforms.functional import pil_to_tensor

    check_positive("task.data", size=size)
    images, labels, problems, one = [], [], [], None
    with progress("read images", len(dataset)) as advance:
        for index in range(len(dataset)):
            try:
                image, label = dataset[index]
            except PdiffError as error:
                problems.append(str(error))
                continue
            square = image.width == image.height <= max(LARGE, 2 * size)
            kind = (*image.size, image.mode) if square else None
            one = one if labels else kind  # what all images so far are, if they are squares of one size
            if one and kind != one:
                images, one = [_fit(before, size) for before in images], None
            images.append(image if one else _fit(image, size))
            labels.append(label)
            advance()
    if problems:
        others = [line.partition(": ")[0] for line in problems[1:]]
        raise PdiffError(problems[0] + (f" Others with problems: {listed(others)}." if others else ""))
    return torch.stack([pil_to_tensor(image) for image in images]), torch.tensor(labels, dtype=torch.int64)


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Return the middle of an image, `size` x `size`."""
    from torchvision.transforms.functional import center_crop, resize

    return center_crop(resize(image.convert("RGB"), size, antialias=True), [size, size])
