"""Detectors and segmentors on a simulated GPU end with the bytes of the CPU."""

import pytest
from torch.nn import functional


@pytest.fixture
def losses_of_the_cpu(case, monkeypatch):
    """Let mmdet compute its focal loss on a GPU as on a CPU; otherwise it goes another way, to other last digits."""
    if case.plugin != "detection":
        return
    from mmdet.models.losses import focal_loss

    def loss(pred, target, *args, **kwargs):
        target = functional.one_hot(target, pred.size(1) + 1)[:, : pred.size(1)]
        return focal_loss.py_sigmoid_focal_loss(pred, target, *args, **kwargs)

    monkeypatch.setattr(focal_loss, "sigmoid_focal_loss", loss)


def test_a_run_ends_with_the_bytes_of_the_cpu(case, on_gpu, losses_of_the_cpu):
    on_gpu(case.run)
