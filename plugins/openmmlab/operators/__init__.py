"""Operators of mmcv on torch's and torchvision's kernels, under the names and signatures of `mmcv._ext`.

As there, the caller hands in the outputs, and a gradient is added to what its tensor holds. They are what the common
detectors and segmentors of mmdet and mmseg compute with.
"""

from pdiff_plugins.openmmlab.operators.attention import ms_deform_attn_backward, ms_deform_attn_forward
from pdiff_plugins.openmmlab.operators.boxes import nms, softnms
from pdiff_plugins.openmmlab.operators.deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from pdiff_plugins.openmmlab.operators.info import get_compiler_version, get_compiling_cuda_version
from pdiff_plugins.openmmlab.operators.losses import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from pdiff_plugins.openmmlab.operators.pooling import (
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]
