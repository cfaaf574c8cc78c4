"""What trainings leave for TensorBoard."""

import json

import torch
from mmengine.model import BaseModel

from pdiff.engine.runner import megabytes_at_peak
from pdiff.engine.training import train

SETTINGS = {
    "steps": 200, "batch_size": 4, "lr": 0.05, "weight_decay": 0.0, "schedule": "constant", "ema": 0.0, "amp": False
}  # fmt: skip


class Slope(BaseModel):
    """Its loss falls with every step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, rows, step, mode="loss"):
        return {"loss": (self.weight * rows).square().mean()}


def test_losses_can_be_read_back_from_the_events_of_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    losses = train(Slope(), torch.ones(8, 2), "denoiser", tmp_path, 0, "", **SETTINGS)
    (file,) = (tmp_path / "logs" / "denoiser").rglob("events.out.tfevents.*")
    values = [(event.step, value) for event in EventFileLoader(str(file)).Load() for value in event.summary.value]
    logged = {step: value.tensor.float_val[0] for step, value in values if value.tag == "loss"}
    assert list(logged) == [100, 200]
    assert logged[200] < logged[100] < losses[0]


def test_losses_are_in_the_log_of_mmengine_too(tmp_path):
    train(Slope(), torch.ones(8, 2), "denoiser", tmp_path, 0, "", **SETTINGS)
    (file,) = (tmp_path / "logs" / "denoiser").rglob("scalars.json")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [100, 200]


def test_the_log_leaves_the_peak_of_a_gpu_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("mmengine.runner.log_processor.is_cuda_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: 1 / 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_, **__: 5 * 2**20)
    train(Slope(), torch.ones(8, 2), "denoiser", tmp_path, 0, "", **SETTINGS)
    assert (megabytes_at_peak(torch.device("cpu")), megabytes_at_peak(torch.device("cuda", 1))) == (0, 5)
