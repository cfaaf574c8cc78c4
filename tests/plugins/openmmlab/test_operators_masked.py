"""The masked convolution, against the plain one."""

import importlib

import pytest
import torch
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning"),
    pytest.mark.filterwarnings("ignore:This overload of addmm is deprecated:UserWarning"),  # mmcv's own call
]


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), ((5, 3), (2, 1))])
def test_it_computes_the_places_of_the_mask_and_leaves_the_others_zero(ops, kernel, padding):
    torch.manual_seed(0)
    layer = ops.MaskedConv2d(3, 4, kernel, padding=padding)
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.5
    with torch.no_grad():
        torch.testing.assert_close(layer(x, mask), layer(x) * mask)


def test_an_empty_mask_gives_zeros(ops):
    layer = ops.MaskedConv2d(3, 4, 3, padding=1)
    assert not layer(torch.randn(1, 3, 6, 7), torch.zeros(1, 6, 7)).any()
