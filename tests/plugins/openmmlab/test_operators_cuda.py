"""The operators give on a GPU what they give on a CPU, values and gradients."""

import importlib

import pytest
import torch
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning"),
    pytest.mark.filterwarnings("ignore:This overload of addmm is deprecated:UserWarning"),  # mmcv's own call
]

LEVELS = torch.tensor([[3, 4], [2, 2]])
ROIS = torch.tensor([[0, 4.0, 2, 19, 17], [1, -6, -3, 11, 9], [0, 20, 14, 60, 50], [1, 90, 90, 99, 99]])
BOXES = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) * 20 + torch.tensor([0, 0, 20, 20])
SCORES = torch.rand(60, generator=torch.Generator().manual_seed(1))


def random(*shapes) -> list[torch.Tensor]:
    """Return tensors of random numbers that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator).requires_grad_() for shape in shapes]


def attention(ops, value, locations, weights):
    levels = LEVELS.to(value.device), torch.tensor([0, 12], device=value.device)
    return ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(value, *levels, locations, weights, 64)


CASES = {
    "nms": (lambda ops, b, s: ops.nms(b, s, 0.5, offset=1)[1], [BOXES, SCORES]),
    "soft_nms": (lambda ops, b, s: ops.soft_nms(b, s, 0.5)[0], [BOXES, SCORES]),
    "roi_align": (lambda ops, x, r: ops.roi_align(x, r, 3, 0.25), [*random((2, 3, 7, 8)), ROIS]),
    "roi_align_max": (lambda ops, x, r: ops.roi_align(x, r, 3, 0.25, 0, "max"), [*random((2, 3, 7, 8)), ROIS]),
    "roi_pool": (lambda ops, x, r: ops.roi_pool(x, r, 3, 0.25), [*random((2, 3, 7, 8)), ROIS]),
    "deform_conv": (
        lambda ops, x, o, w: ops.deform_conv2d(x, o, w, 1, 1),
        random((2, 4, 7, 8), (2, 18, 7, 8), (6, 4, 3, 3)),
    ),
    "modulated_deform_conv": (
        lambda ops, x, o, m, w, b: ops.modulated_deform_conv2d(x, o, m, w, b, 1, 1),
        random((2, 4, 7, 8), (2, 18, 9, 9), (2, 9, 9, 9), (6, 4, 3, 3), 6),
    ),
    "sigmoid_focal_loss": (lambda ops, x, t: ops.sigmoid_focal_loss(x, t), [*random((9, 4)), torch.arange(9) % 5]),
    "ms_deform_attn": (attention, random((2, 16, 2, 4), (2, 3, 2, 2, 2, 2), (2, 3, 2, 2, 2))),
}


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


def results(ops, name, device) -> list[torch.Tensor]:
    """Return the output of a case on a device, and the gradients of its inputs."""
    function, inputs = CASES[name]
    inputs = [x.detach().to(device).requires_grad_(x.requires_grad) for x in inputs]
    output = function(ops, *inputs)
    leaves = [x for x in inputs if x.requires_grad]
    grads = torch.autograd.grad(output.square().sum(), leaves) if leaves else ()
    return [x.detach().cpu() for x in (output, *grads)]


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_what_a_cpu_gives(ops, name):
    torch.testing.assert_close(results(ops, name, "cuda"), results(ops, name, "cpu"), rtol=1e-4, atol=1e-5)
