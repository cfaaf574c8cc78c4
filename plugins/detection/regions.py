"""Regions of interest of two-stage detectors, kept exact in mixed precision."""

from typing import Any

import torch
from pdiff_plugins.openmmlab.operators.precision import full
from torch import nn


def keep_regions_exact(model: nn.Module) -> None:
    """Let a detector pool the features of regions in single precision, where they come in half of it.

    mmdet gives the corners of regions the precision of the features: in bfloat16 the pixel 1001 is pixel 1000.
    """
    from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import BaseRoIExtractor

    for module in model.modules():
        if isinstance(module, BaseRoIExtractor):
            module.register_forward_pre_hook(in_single_precision)


def in_single_precision(module: nn.Module, args: tuple) -> tuple[Any, ...]:
    """Return what a region extractor is called with, features `(B, C, H, W)` of each level first, as it shall be."""
    features, *rest = args
    if not torch.is_autocast_enabled(features[0].device.type):
        return args
    return tuple(map(full, features)), *rest
