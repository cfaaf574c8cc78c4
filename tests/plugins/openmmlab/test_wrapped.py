"""Data sets inside wrappers, and what looks into them."""

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset

pytest.importorskip("mmdet")

from pdiff_plugins.openmmlab.classes import count_objects
from pdiff_plugins.openmmlab.data import Shared
from pdiff_plugins.openmmlab.wrapped import inside


def test_a_plain_data_set_stands_alone(splits):
    assert inside(splits["train"].dataset) == [splits["train"].dataset]


def test_wrappers_are_taken_off(splits):
    train, test = splits["train"].dataset, splits["test"].dataset
    assert inside(RepeatDataset(train, 2)) == [train]
    assert inside(Shared(ConcatDataset([train, test]))) == [train, test]


def test_objects_of_all_data_sets_count_once(splits):
    train, test = splits["train"].dataset, splits["test"].dataset
    both = count_objects(train, 10) + count_objects(test, 10)
    assert count_objects(ConcatDataset([train, test]), 10).tolist() == both.tolist()
    assert count_objects(RepeatDataset(train, 3), 10).tolist() == count_objects(train, 10).tolist()
