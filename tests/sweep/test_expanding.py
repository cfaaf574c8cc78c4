"""The settings of a sweep."""

import pytest
import yaml

from pdiff.runtime.errors import PdiffError
from pdiff.sweep.expanding import settings_of
from pdiff.sweep.sweep import Sweep

LATENT, WHITEN = "engine.autoencoder.latent", "engine.whiten"


@pytest.fixture
def settings(closed, tmp_path):
    """Return a function that expands a sweep of the tiny config with conditions."""

    def expand(vary=(), seeds=(), options=None, only=(), collect_again=False, **changes):
        file = tmp_path / "closed.yaml"
        file.write_text(yaml.safe_dump({**closed, **changes}))
        return settings_of(Sweep(None, str(file), options or {}, list(vary), list(seeds), list(only), collect_again))

    return expand


def names(settings):
    return [setting.name for setting in settings]


def test_keys_of_an_ablation_are_combined_with_each_other_and_the_seeds(settings):
    found = settings([{LATENT: [4, 8], WHITEN: [True, False]}], [0, 1])
    assert names(found)[1:3] == ["latent=4,whiten=true,seed=1", "latent=4,whiten=false,seed=0"]
    assert len(found) == 8
    assert [setting.config["fit"]["seed"] for setting in found] == [0, 1] * 4
    assert {setting.collection for setting in found} == {"closed_form"}
    assert found[-1].values == {LATENT: 8, WHITEN: False}


def test_config_itself_runs_once_and_is_a_point_of_every_ablation_of_one_key(settings):
    found = settings([{}, {LATENT: [4, 8]}, {WHITEN: [False]}])
    assert {setting.name: set(setting.ablations) for setting in found} == {
        "config": {0, 1, 2}, "latent=4": {1}, "whiten=false": {2},
    }  # fmt: skip
    assert found[0].values == {LATENT: 8, WHITEN: True}


def test_one_ablation_names_all_its_values_the_configs_own_too(settings):
    assert names(settings([{LATENT: [4, 8]}])) == ["latent=4", "latent=8"]


def test_seeds_alone_are_a_sweep(settings):
    assert names(settings(seeds=[3, 4])) == ["seed=3", "seed=4"]


def test_sources_and_figures_that_cost_time_are_left_out_unless_told(settings):
    (quick,) = settings([{LATENT: [4]}], only=["ridge"])
    assert (quick.config["evaluate"]["only"], quick.config["evaluate"]["train"]) == (["ridge"], [])
    assert quick.config["generate"]["path"] == 0
    (told,) = settings([{LATENT: [4]}], options={"generate.path": 3, "evaluate.only": None})
    assert (told.config["generate"]["path"], told.config["evaluate"]["only"]) == (3, None)


def test_collection_is_shared_by_all_that_depend_on_the_same(settings):
    found = settings([{"collect.networks": [30, 40], LATENT: [4, 8]}], [0, 1], collect_again=True)
    assert {setting.name: setting.collection for setting in found if "seed=0" in setting.name} == {
        "networks=30,latent=4,seed=0": "networks=30,seed=0", "networks=30,latent=8,seed=0": "networks=30,seed=0",
        "networks=40,latent=4,seed=0": "networks=40,seed=0", "networks=40,latent=8,seed=0": "networks=40,seed=0",
    }  # fmt: skip
    assert [setting.config["seed"] for setting in found] == [0, 1] * 4


def test_settings_of_the_same_text_have_names_of_their_own(settings):
    flows = [{"type": "flow", "noise_scale": scale} for scale in (0.5, 1.0)]
    assert names(settings([{"engine.generator": flows}])) == ["generator=flow", "generator=flow~2"]


def test_key_that_a_config_does_not_have_is_no_value_of_its(settings):
    found = settings([{"engine.generator.type": ["vae", "flow"]}, {"engine.sampler.steps": [5]}])
    assert "engine.sampler.steps" not in found[0].values
    assert "engine.sampler.steps" in found[1].values


@pytest.mark.parametrize(
    ("vary", "line"),
    [
        ({"engine.latent": [4]}, "latent=4: engine: got unknown key 'latent'"),
        ({"fit.repeats": [1, "x"]}, "repeats=x: fit.repeats: got 'x', expected an integer"),
        ({"evaluate.only": [["ridge"], ["nope"]]}, "only=nope: evaluate.only: got 'nope'"),
        ({"fit": [3]}, "fit=3: fit: got 3, expected a section"),
    ],
)
def test_setting_that_cannot_be_is_named(settings, vary, line):
    with pytest.raises(PdiffError) as error:
        settings([vary])
    assert str(error.value).startswith(line)


def test_seeds_of_everything_are_refused_beside_one_seed_of_all_fits(settings, closed):
    fit = {**closed["fit"], "seed": 3}
    with pytest.raises(PdiffError) as error:
        settings([{LATENT: [4]}], [0, 1], collect_again=True, fit=fit)
    assert str(error.value) == (
        "latent=4,seed=0: fit.seed: got 3, so that all are fitted and drawn with it, expected null beside "
        "--collect-again, whose seeds are of everything. Leave it out."
    )
    assert len(settings([{"fit.seed": [0, 1]}], [0, 1], collect_again=True, fit=fit)) == 4
    assert len(settings([{LATENT: [4]}], [0, 1], fit=fit)) == 2
