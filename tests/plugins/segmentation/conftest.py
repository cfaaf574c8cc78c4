"""Images with label maps, written by the tests, and the data set that mmseg makes of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("road", "tree", "sky")


@pytest.fixture
def write():
    """Return a function that writes an image and its label map into a folder."""

    def to(folder: Path, labels: np.ndarray, name: str = "a.png", size=(6, 8)) -> None:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / "images" / name)
        Image.fromarray(labels).save(folder / "labels" / name)

    return to


@pytest.fixture
def dataset(segmentor, tmp_path):
    """Return a function from settings to a data set of mmseg, of what was written, its classes the three."""
    from mmseg.datasets import ADE20KDataset, BaseSegDataset

    def build(classes=CLASSES, ade20k: bool = False, **settings):
        own = {"data_root": str(tmp_path), "data_prefix": {"img_path": "images", "seg_map_path": "labels"}}
        own |= {"img_suffix": ".png", "metainfo": {"classes": classes}, "serialize_data": False}
        own |= {"pipeline": [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]}
        with segmentor.library.scope():
            return (ADE20KDataset if ade20k else BaseSegDataset)(**{**own, **settings})

    return build
