import numpy as np
import pytest
import torch

from pdiff import ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.objectives import Denoising
from pdiff.engine.watching import LOOK, left_out

# Few vectors and a wide network with a high rate: it soon knows them by heart.
HASTY = {
    "autoencoder": {"latent": 6},
    "denoiser": {"width": 64, "depth": 2},
    "generator_training": {"steps": 400, "lr": 5e-3, "patience": 3},
}
VECTORS = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
GROUPS = torch.arange(40) // 4


def fitted(changes=None, folder=None, **given):
    training_settings = HASTY["generator_training"] | (changes or {})
    return ParameterDiffusion({**HASTY, "generator_training": training_settings}).fit(VECTORS, folder=folder, **given)


def weights(engine):
    return torch.cat([tensor.flatten() for tensor in engine.generator.denoiser.state_dict().values()])


def test_a_tenth_of_the_groups_is_left_out_whole():
    labels = np.repeat(np.arange(30), 3)
    watched = left_out(labels, seed=0)
    assert len({*labels[watched]}) == 3
    assert watched.sum() == 9
    assert not torch.equal(watched, left_out(labels, seed=1))


@pytest.mark.parametrize("count", [2, 3])
def test_of_few_groups_one_is_left_out(count):
    assert left_out([f"run {number}" for number in range(count)], seed=0).sum() == 1


def test_vectors_of_one_training_cannot_be_watched():
    with pytest.raises(PdiffError, match=r"patience: got vectors of one training alone, .* Set it to 0\.$"):
        fitted(groups=[0] * 40)


def test_groups_are_one_for_each_vector():
    with pytest.raises(PdiffError, match=r"fit.groups: got shape \(3,\), expected \(40,\), a label for each vector\."):
        fitted(groups=[0, 1, 2])


def test_training_ends_when_what_it_does_not_see_gets_no_better(caplog):
    with caplog.at_level("INFO", "pdiff"):
        engine = fitted(groups=GROUPS)
    watched, steps = engine.history["watched"], len(engine.history["denoiser"])
    assert steps == LOOK * len(watched) < 400
    assert len(watched) - 1 - int(np.argmin(watched)) == 3
    assert f"fit denoiser: ended at step {steps} of 400; the weights are those of step {steps - 60}" in caplog.text


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_kept_are_the_weights_of_the_best_look(ema):
    engine = fitted({"ema": ema}, groups=GROUPS)
    mask = left_out(GROUPS, engine.seed)
    rows = engine.whitening(engine.encode(VECTORS))[mask]
    own = Denoising(engine.generator.denoiser, engine.process, engine.seed).watched_loss(rows)
    assert own.item() == pytest.approx(min(engine.history["watched"]), rel=1e-5)


def test_a_patient_training_does_all_steps_and_looks_at_the_last():
    history = fitted({"steps": 50, "patience": 100}).history
    assert len(history["denoiser"]) == 50
    assert len(history["watched"]) == 3


def test_without_patience_groups_change_nothing():
    plain, grouped = (fitted({"steps": 20, "patience": 0}, **given) for given in ({}, {"groups": GROUPS}))
    assert torch.equal(weights(plain), weights(grouped))
    assert "watched" not in plain.history


CONDITIONS = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("changes", "conditions", "stop"),
    [
        ({}, None, 37),
        ({}, None, "end"),
        ({"ema": 0.0, "amp": True}, None, 37),
        ({"compile": "eager"}, None, 37),
        ({}, CONDITIONS, 37),
    ],
)
def test_interrupted_training_ends_at_the_same_step_with_the_same_bytes(
    tmp_path, monkeypatch, changes, conditions, stop
):
    given, forward = {"groups": GROUPS, "conditions": conditions}, Denoising.forward
    whole = fitted(changes, **given)

    def interrupted(self, rows, step, mode="loss"):
        if step == stop:
            raise KeyboardInterrupt
        return forward(self, rows, step, mode)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
        patch.setattr(Denoising, "forward", interrupted)
        if stop == "end":
            fitted(changes, tmp_path, **given)
        else:
            with pytest.raises(KeyboardInterrupt):
                fitted(changes, tmp_path, **given)
    resumed = fitted(changes, tmp_path, **given)
    assert resumed.history == whole.history
    assert torch.equal(weights(resumed), weights(whole))


def test_a_condition_is_told_where_it_is_watched():
    engine = fitted({"steps": 40}, conditions=CONDITIONS)
    objective = Denoising(engine.generator.denoiser, engine.process, engine.seed, 2)
    rows = torch.cat([engine.whitening(engine.encode(VECTORS)), engine.conditioning(CONDITIONS)], 1)
    other = torch.cat([rows[:, :-2], rows[:, -2:].roll(1, 0)], 1)
    assert objective.watched_loss(rows) == objective.watched_loss(rows)
    assert objective.watched_loss(rows) != objective.watched_loss(other)


def test_a_negative_patience_is_one_line():
    with pytest.raises(PdiffError, match="patience"):
        fitted({"patience": -1})
