import pytest
import torch
from mmengine.model import BaseModel

from pdiff.errors import PdiffError
from pdiff.models import training
from pdiff.models.training import Batches, train
from pdiff.seeding import generator

SETTINGS = {
    "steps": 60, "batch_size": 8, "lr": 0.05, "weight_decay": 0.0, "schedule": "cosine", "ema": 0.0, "amp": False
}  # fmt: skip


class Fit(BaseModel):
    """Regression of a known linear map, with noise that depends on the step; it can be made to fail at a step."""

    def __init__(self, fail_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.fail_at = fail_at

    def forward(self, rows, step, mode="loss"):
        if step == self.fail_at:
            raise KeyboardInterrupt
        noise = torch.randn(rows.shape, generator=generator(0, step))
        return {"loss": (self.norm(self.linear(rows + 0.1 * noise)) - rows).square().mean()}


ROWS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


def weights(model):
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


def test_every_epoch_sees_every_row_once_in_another_order():
    batches = Batches(torch.arange(10), batch_size=4, steps=10, seed=0)
    rows = torch.cat([batches[step]["rows"] for step in range(10)])
    epochs = rows.split(10)
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_a_batch_depends_on_its_step_alone():
    one, other = (Batches(torch.arange(10), 4, 10, seed=0) for _ in range(2))
    for step in range(7):
        one[step]
    assert torch.equal(one[7]["rows"], other[7]["rows"])


def test_batch_may_be_larger_than_the_population():
    assert len(Batches(torch.arange(3), 8, 1, seed=0)[0]["rows"]) == 8


def test_training_lowers_the_loss_and_returns_it_for_every_step():
    losses = train(Fit(), ROWS, "autoencoder", None, 0, "", **SETTINGS)
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"schedule": "constant"}, {"amp": True}])
def test_interrupted_training_goes_on_to_the_same_bytes(tmp_path, monkeypatch, changes):
    settings = SETTINGS | changes
    whole = Fit()
    losses = train(whole, ROWS, "autoencoder", None, 0, "", **settings)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    with pytest.raises(KeyboardInterrupt):
        train(Fit(fail_at=37), ROWS, "autoencoder", tmp_path, 0, "", **settings)
    resumed = Fit(fail_at=10)  # it would fail if it started from the beginning
    assert train(resumed, ROWS, "autoencoder", tmp_path, 0, "", **settings) == losses
    assert torch.equal(weights(whole), weights(resumed))


def test_state_of_another_training_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    train(Fit(), ROWS, "autoencoder", tmp_path, 0, "one", **SETTINGS)
    other = Fit()
    train(other, ROWS + 1, "autoencoder", tmp_path, 0, "one", **SETTINGS)
    fresh = Fit()
    train(fresh, ROWS + 1, "autoencoder", None, 0, "one", **SETTINGS)
    assert torch.equal(weights(other), weights(fresh))


def test_moving_average_is_what_remains():
    plain, averaged = Fit(), Fit()
    train(plain, ROWS, "autoencoder", None, 0, "", **SETTINGS)
    train(averaged, ROWS, "autoencoder", None, 0, "", **SETTINGS | {"ema": 0.9})
    assert not torch.equal(weights(plain), weights(averaged))


def test_unknown_learning_rate_schedule_is_refused():
    with pytest.raises(PdiffError, match="engine.autoencoder_training.schedule: got 'cosin'. Did you mean 'cosine'"):
        train(Fit(), ROWS, "autoencoder", None, 0, "", **SETTINGS | {"schedule": "cosin"})
