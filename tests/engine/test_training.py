import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper

from pdiff.engine import training
from pdiff.engine.scaling import PerCoordinate, Scaled
from pdiff.engine.training import Batches, MovingAverage, train, trains_alone
from pdiff.runtime.seeding import generator, normal
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.vectors import Rows

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
        noise = normal(rows.shape, generator(0, step, device=rows.device))
        return {"loss": self.loss(rows, rows + 0.1 * noise)}

    def loss(self, rows, noisy):
        return (self.norm(self.linear(noisy)) - rows).square().mean()


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


def test_the_order_of_rows_lies_where_the_vectors_do_whatever_computes_with_them():
    scaling = PerCoordinate(4).to("meta")
    batches = Batches(Scaled(Rows(ROWS, range(20), torch.device("meta")), scaling), 8, 1, seed=0)
    assert batches.order(0).device == torch.device("cpu")
    assert batches[0]["rows"].device == torch.device("meta")


def test_training_lowers_the_loss_and_returns_it_for_every_step():
    losses = train(Fit(), ROWS, "autoencoder", None, 0, "", **SETTINGS)
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"schedule": "constant"}, {"amp": True}, {"compile": "eager"}])
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


def test_state_of_another_training_is_not_taken_which_the_log_says(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    train(Fit(), ROWS, "autoencoder", tmp_path, 0, "one", **SETTINGS)
    other = Fit()
    line = "fit: autoencoder.state.safetensors is of other vectors or settings: this training begins anew"
    with caplog.at_level("INFO", "pdiff"):
        assert line not in caplog.messages
        train(other, ROWS + 1, "autoencoder", tmp_path, 0, "one", **SETTINGS)
    assert line in caplog.messages
    fresh = Fit()
    train(fresh, ROWS + 1, "autoencoder", None, 0, "one", **SETTINGS)
    assert torch.equal(weights(other), weights(fresh))


def test_moving_average_is_what_remains():
    plain, averaged = Fit(), Fit()
    train(plain, ROWS, "autoencoder", None, 0, "", **SETTINGS)
    train(averaged, ROWS, "autoencoder", None, 0, "", **SETTINGS | {"ema": 0.9})
    assert not torch.equal(weights(plain), weights(averaged))


def test_compiled_training_ends_with_the_same_weights_and_leaves_the_objective_as_it_was():
    plain, compiled = Fit(), Fit()
    losses = train(plain, ROWS, "autoencoder", None, 0, "", **SETTINGS)
    assert train(compiled, ROWS, "autoencoder", None, 0, "", **SETTINGS | {"compile": "eager"}) == losses
    assert torch.equal(weights(plain), weights(compiled))
    assert "loss" not in compiled.__dict__


@pytest.mark.cuda
@pytest.mark.parametrize("compile", ["inductor", "cudagraphs"])
def test_compiled_training_on_a_gpu_ends_near_the_same_weights(compile):
    plain, compiled = Fit().cuda(), Fit().cuda()
    for objective, changes in ((plain, {}), (compiled, {"compile": compile})):
        train(objective, ROWS.cuda(), "autoencoder", None, 0, "", **SETTINGS | changes)
    assert torch.allclose(weights(plain), weights(compiled), atol=1e-3)


def test_no_step_is_kept_for_its_gradient(monkeypatch):
    kept = []
    monkeypatch.setattr(training.Losses, "before_train", kept_by(training.Losses.before_train, kept))
    train(Fit(), ROWS, "autoencoder", None, 0, "", **SETTINGS)
    assert [hook.values.grad_fn for hook in kept] == [None]


def kept_by(method, kept):
    """Return a method that keeps whose it is before it does what it did."""

    def called(self, runner):
        kept.append(self)
        method(self, runner)

    return called


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"schedule": "constant"}, {"amp": True}])
def test_no_step_waits_for_a_gpu(monkeypatch, changes):
    step, expected = OptimWrapper.update_params, Fit()
    losses = train(expected, ROWS, "autoencoder", None, 0, "", **SETTINGS | changes)
    with simulated_cuda() as gpu:
        objective, rows, waits = Fit().cuda(), ROWS.cuda(), []

        def counted(self, *given, **named):
            step(self, *given, **named)
            waits.append(gpu.syncs)

        monkeypatch.setattr(OptimWrapper, "update_params", counted)
        assert train(objective, rows, "autoencoder", None, 0, "", **SETTINGS | changes) == losses
        assert len(waits) == SETTINGS["steps"]
        assert waits[-1] == waits[0], gpu.places.most_common(5)


@pytest.mark.parametrize(
    ("rows", "batch_size", "weights", "alone"),
    [(1, 64, 10**9, True), (64, 15, 10**9, True), (64, 64, 10**6, True), (64, 64, 10**7, False)],
)
def test_what_is_too_small_for_several_gpus_is_trained_by_one(monkeypatch, rows, batch_size, weights, alone):
    monkeypatch.setattr(training, "size", lambda: 2)
    objective = torch.nn.Module()
    objective.weight = torch.nn.Parameter(torch.empty(weights, device="meta"))
    assert trains_alone(objective, rows, batch_size, torch.device("cpu")) == (rows < 2), "on CPUs it is shared"
    assert trains_alone(objective, rows, batch_size, torch.device("cuda")) == alone


def test_moving_average_is_that_of_its_formula():
    average = MovingAverage(torch.nn.BatchNorm1d(3), momentum=0.1, update_buffers=True)
    source = torch.nn.BatchNorm1d(3)
    expected = None
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            source.weight.fill_(value)
        average.update_parameters(source)
        expected = value if expected is None else expected + 0.1 * (value - expected)
    assert torch.allclose(average.module.weight, torch.full((3,), expected))
