import pytest

from pdiff.engine.schedule import noise_schedule
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.registry import call


def test_schedule_has_the_published_betas():
    betas = noise_schedule().betas
    assert (len(betas), betas[0].item(), betas[-1].item()) == (1000, pytest.approx(1e-4), pytest.approx(2e-2))


@pytest.mark.parametrize("key", ["prediction", "beta_schedule"])
def test_unknown_schedule_settings_are_refused_by_name(key):
    with pytest.raises(PdiffError, match=f"engine.noise_schedule.{key}: got 'other'"):
        call(noise_schedule, {key: "other"}, "engine.noise_schedule")


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("timesteps", [2, 10, 1000])
def test_a_stretched_schedule_begins_as_it_would_and_ends_in_noise_alone(prediction, timesteps):
    own, stretched = (
        noise_schedule(timesteps, prediction=prediction, zero_terminal_snr=zero).alphas_cumprod
        for zero in (False, True)
    )
    assert stretched[0].item() == pytest.approx(own[0].item())
    assert stretched[-1] == 0
    assert (stretched[:-1] > 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {},
            "got true with the prediction 'epsilon', from which no latent follows where there is noise alone. Set pred",
        ),
        (
            {"prediction": "sample", "timesteps": 1},
            "got true with one timestep, expected two at least, of which the fi",
        ),
    ],
)
def test_a_schedule_that_cannot_be_stretched_is_refused(settings, words):
    with pytest.raises(PdiffError, match=rf"^engine\.noise_schedule\.zero_terminal_snr: {words}"):
        noise_schedule(zero_terminal_snr=True, **settings)


def test_no_timestep_at_all_is_refused():
    with pytest.raises(PdiffError, match=r"^engine\.noise_schedule\.timesteps: got 0, expected"):
        noise_schedule(0)
