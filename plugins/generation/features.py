"""The networks in whose feature space images are compared: a classifier of our own, or Inception as published.

A FID belongs to its feature network. Two FIDs compare only where the networks are the same, by hash.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import Registry
from pdiff_plugins.images.classify import classify
from pdiff_plugins.images.collection import train_base
from pdiff_plugins.images.data import Split
from torch import Tensor, nn

from pdiff import (
    Metric,
    PdiffError,
    Task,
    build,
    check_positive,
    derive_seed,
    isolated_seed,
    read_tensors_and_metadata,
    write_tensors,
)

FEATURES = Registry("features", scope="pdiff")


class FeatureNetwork(ABC):
    """From images to features.

    Args:
        size: number of features F.
    """

    def __init__(self, size: int):
        self.size = size

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features `(B, F)` of images `(B, C, H, W)` in [-1, 1], and the probability of each class, if any."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return name, hash and, of a classifier, accuracy."""

    def description(self) -> str:
        """Return the facts as a reader wants them."""
        facts = self.facts()
        accuracy = f", accuracy {facts['accuracy']:.3f}" if "accuracy" in facts else ""
        return f"{facts['name']}{accuracy}, sha256 {facts['sha256'][:8]}"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors: names and values, in order of the names."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        result.update(name.encode())
        result.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


class Convolutions(nn.Module):
    """A small classifier: convolutions that halve the image, the mean over it, a layer of features, and the classes.

    Args:
        channels: of the images.
        classes: number of classes.
        widths: channels of each convolution.
        size: number of features F.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int], size: int):
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise([channels, *widths])
        ]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], size), nn.ReLU())
        self.features = nn.Sequential(*blocks, pooled)
        self.head = nn.Linear(size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(B, classes)`."""
        return self.head(self.features(images))


class Classifier(FeatureNetwork):
    """The features of a trained `Convolutions`.

    Args:
        network: in eval mode.
        accuracy: on real images that it was not trained on, a fraction.
    """

    def __init__(self, network: Convolutions, accuracy: float):
        super().__init__(network.head.in_features)
        self.network, self.accuracy = network, accuracy

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features `(B, F)` and probabilities `(B, classes)`."""
        features = self.network.features(images)
        return features, self.network.head(features).softmax(1)

    def facts(self) -> dict[str, Any]:
        """Return name, hash and accuracy."""
        name = f"own classifier, {self.size} features"
        return {"name": name, "accuracy": self.accuracy, "sha256": digest(self.network.state_dict())}


@FEATURES.register_module(name="classifier")
def classifier(
    splits: Mapping[str, Split],
    seed: int,
    folder: Path,
    size: int = 32,
    widths: Sequence[int] = (16, 32, 64),
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 3e-3,
    augment: Sequence[dict] = (),
) -> FeatureNetwork:
    """Return the classifier in `folder`; the first time, train it on the split `train` and write it there.

    Args:
        splits: the data.
        seed: of the run.
        folder: where it is kept.
        size: number of features F.
        widths: channels of each convolution.
        epochs: passes over the training split.
        batch_size: images per step.
        lr: first learning rate (cosine to 0).
        augment: augmentations of a batch, in order.
    """
    check_positive("task.features", size=size, epochs=epochs, batch_size=batch_size)
    path, data, own = folder / "classifier.safetensors", splits["train"], derive_seed(seed, "features")
    with isolated_seed(own):
        network = Convolutions(data.images.shape[1], data.classes, widths, size).to(data.device)
        if not path.exists():
            logging.getLogger("pdiff").info("features: a classifier is trained on the real images")
            task = Task(network, splits, Metric("accuracy"))
            settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "augment": augment}
            for _ in train_base(task, own, 0, classify, None, **settings):
                pass
            accuracy = measure_accuracy(network.eval(), splits["test"])
            write_tensors(path, network.state_dict(), {"accuracy": repr(accuracy)})
    tensors, metadata = read_tensors_and_metadata(path)
    network.load_state_dict(tensors)
    return Classifier(network.eval().requires_grad_(False), float(metadata["accuracy"]))


@torch.no_grad()
def measure_accuracy(network: nn.Module, split: Split) -> float:
    """Return the share of images whose class a network finds."""
    correct = [(network(images).argmax(1) == labels).double() for _, images, labels in split.batches()]
    return torch.cat(correct).mean().item()


class Inception(FeatureNetwork):
    """The 2,048 features of Inception v3 as FID was published with; images of one channel are given to all three.

    Args:
        network: torchmetrics' Inception.
    """

    def __init__(self, network: nn.Module):
        super().__init__(2048)
        self.network = network

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features `(B, 2048)`, and no probabilities."""
        pixels = (images.expand(-1, 3, -1, -1) * 127.5 + 127.5).round().byte()
        return self.network(pixels), None

    def facts(self) -> dict[str, Any]:
        """Return name and hash."""
        return {"name": "Inception v3 (torch-fidelity), 2048 features", "sha256": digest(self.network.state_dict())}


@FEATURES.register_module(name="inception")
def inception(
    splits: Mapping[str, Split], seed: int, folder: Path, weights: str | None = None
) -> FeatureNetwork:
    """Return torchmetrics' Inception.

    Args:
        splits: the data.
        seed: of the run.
        folder: where a network that is trained would be kept.
        weights: the file `weights-inception-2015-12-05-6726825d.pth`; default: fetched, or found in torch's cache.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3

    if splits["train"].images.shape[1] not in (1, 3):
        raise PdiffError(f"task.features: Inception takes 1 or 3 channels, got {splits['train'].images.shape[1]}.")
    try:
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except ModuleNotFoundError:
        raise PdiffError("task.features: Inception needs torch-fidelity. Run: pip install torch-fidelity.") from None
    except Exception as error:  # torch.hub, urllib and pickle raise many kinds
        raise PdiffError(
            f"task.features: the weights of Inception cannot be had ({' '.join(str(error).split())}). Fetch "
            "weights-inception-2015-12-05-6726825d.pth elsewhere and give its path as weights, or take the classifier."
        ) from None
    return Inception(network.to(splits["train"].device).eval())


def build_features(cfg: Mapping[str, Any], splits: Mapping[str, Split], seed: int, folder: Path) -> FeatureNetwork:
    """Return the feature network that a config section describes."""
    return build(FEATURES, cfg, "task.features", splits=splits, seed=seed, folder=folder)
