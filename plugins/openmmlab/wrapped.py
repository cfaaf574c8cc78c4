"""The data sets inside wrappers."""

from mmengine.dataset import ConcatDataset
from torch.utils.data import Dataset


def inside(dataset: Dataset) -> list[Dataset]:
    """Return the data sets that a wrapper repeats, joins or mixes; a plain one alone."""
    if isinstance(dataset, ConcatDataset):
        return [plain for inner in dataset.datasets for plain in inside(inner)]
    inner = vars(dataset).get("dataset")
    return [dataset] if inner is None else inside(inner)
