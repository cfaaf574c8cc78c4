"""Regions of interest in mixed precision."""

import warnings

import pytest
import torch
from torch import nn

pytest.importorskip("mmdet")


@pytest.fixture(scope="module")
def extractor():
    """Return mmdet's extractor of regions from a level of one pixel to the cell, in a network."""
    from pdiff_plugins.openmmlab.libraries import MMDET

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MMDET.load()
    from mmdet.models import SingleRoIExtractor

    layer = {"type": "RoIAlign", "output_size": 2, "sampling_ratio": 1}
    return SingleRoIExtractor(layer, out_channels=1, featmap_strides=[1])


def test_regions_are_not_rounded_in_mixed_precision(extractor):
    from pdiff_plugins.detection.regions import keep_regions_exact

    network = nn.Sequential(extractor)
    features = torch.arange(1024.0).expand(1, 1, 8, 1024).bfloat16()
    rois = torch.tensor([[0, 1001.0, 1, 1003, 3]])
    keep_regions_exact(network)
    with torch.autocast("cpu", torch.bfloat16):
        found = network[0]([features], rois)
    columns = features.float()[0, 0, 0, 1001:1003]
    torch.testing.assert_close(found[0, 0], columns.expand(2, 2))


def test_a_network_in_half_precision_gets_what_it_takes(extractor):
    from pdiff_plugins.detection.regions import keep_regions_exact

    keep_regions_exact(extractor)
    features = torch.ones(1, 1, 8, 8, dtype=torch.bfloat16)
    assert extractor([features], torch.tensor([[0, 1.0, 1, 3, 3]])).dtype == torch.bfloat16
