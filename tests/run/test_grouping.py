import pytest
import yaml

from pdiff.run.comparison import read_runs
from pdiff.run.grouping import differing_keys, figures, group_runs, short_names, value_text, value_texts


@pytest.fixture
def run(compared):
    """Return a function that writes a run without conditions of some config."""

    def write(name, config, **changes):
        path = compared(name, **changes)
        (path / "config.yaml").write_text(yaml.safe_dump({"plugin": "classification", **config}))
        return path

    return write


def latent(value, **more):
    return {"engine": {"autoencoder": {"latent": value}}, **more}


def names_and_runs(paths, **given):
    return [(group.name, [run.name for run in group.runs]) for group in group_runs(read_runs(paths), **given)]


def test_runs_that_differ_in_seeds_and_in_what_no_result_shows_are_one_group(run):
    paths = [
        run("digits_seed0", {"seed": 0, "device": "cpu", "fit": {"seed": None}}),
        run("digits_seed1", {"seed": 0, "device": "cuda", "fit": {"seed": 1}}),
        run("digits_seed2", {"seed": 2, "device": "cpu", "fit": {"seed": None}, "evaluate": {"together": 8}}),
    ]
    assert names_and_runs(paths) == [("digits", ["digits_seed0", "digits_seed1", "digits_seed2"])]


def test_groups_are_named_by_what_differs_and_single_runs_by_themselves(run):
    paths = [run("a", latent(8, seed=0)), run("b", latent(16, seed=0)), run("c", latent(8, seed=1))]
    groups = group_runs(read_runs(paths))
    assert [(group.name, dict(group.values), len(group.runs)) for group in groups] == [
        ("latent=8", {"engine.autoencoder.latent": 8}, 2), ("b", {"engine.autoencoder.latent": 16}, 1),
    ]  # fmt: skip


def test_copy_of_a_run_is_no_other_draw(run):
    paths = [run(name, {"seed": seed}) for name, seed in (("a0", 0), ("a1", 1), ("b0", 0), ("b1", 1))]
    assert names_and_runs(paths) == [("a", ["a0", "a1"]), ("b", ["b0", "b1"])]


def test_seed_of_the_fit_that_is_the_seed_is_the_same_seed(run):
    paths = [run("one", {"seed": 1, "fit": {"seed": None}}), run("two", {"seed": 1, "fit": {"seed": 1}})]
    assert names_and_runs(paths) == [("one", ["one"]), ("two", ["two"])]


def test_key_that_an_older_version_lacks_is_null(run):
    old, new = {"seed": 0, "fit": {"heldout": 0.3}}, {"seed": 1, "fit": {"heldout": 0.3, "num": None}}
    assert names_and_runs([run("run0", old), run("run1", new)]) == [("run", ["run0", "run1"])]


def test_keys_of_several_plugins_are_not_named(run):
    paths = [run("one", {"plugin": "detection", **latent(8)}), run("two", latent(16))]
    assert [dict(group.values) for group in group_runs(read_runs(paths))] == [{}, {}]


def test_more_than_six_keys_are_not_named_unless_asked_for(run):
    six, seven = ({"task": dict.fromkeys("abcdefg"[:count], 1)} for count in (6, 7))
    assert len(group_runs(read_runs([run("one", six), run("two", {"task": {}})]))[0].values) == 6
    paths = [run("three", seven), run("four", {"task": {"g": 2}})]
    assert [dict(group.values) for group in group_runs(read_runs(paths))] == [{}, {}]
    assert [dict(group.values) for group in group_runs(read_runs(paths), ["task.g"])] == [{"task.g": 1}, {"task.g": 2}]


def test_groups_of_the_same_values_have_names_of_their_own(run):
    paths = [
        run(name, latent(width, seed=seed)) for width in (8, 9) for name, seed in ((f"a{width}", 0), (f"b{width}", 1))
    ]
    paths += [run("c0", latent(8, seed=0)), run("c1", latent(8, seed=1))]
    assert [name for name, _ in names_and_runs(paths)] == ["latent=8", "latent=9", "c"]


def test_group_never_has_the_name_of_a_run_outside_it(run):
    paths = [run("a0", {"seed": 0}), run("a1", {"seed": 1}), run("a", {"plugin": "detection"})]
    assert [name for name, _ in names_and_runs(paths)] == ["a0, a1", "a"]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("run10", "run11"), "run"),
        (("run1", "run10"), "run"),
        (("latent=8,seed=0", "latent=8,seed=1"), "latent=8"),
        (("0", "1"), "0, 1"),
    ],
)
def test_shared_name_ends_before_the_seed(run, names, shared):
    paths = [run(name, {"seed": seed}) for seed, name in enumerate(names)]
    assert names_and_runs(paths) == [(shared, list(names))]


def test_keys_that_differ_come_dotted_without_seeds_and_device():
    configs = [{**latent(8), "seed": 0, "device": "cpu", "generate": {"path": 4}}]
    configs += [{**latent(16), "seed": 1, "device": "cuda", "fit": {"seed": 3}, "generate": {"path": 0}}]
    assert differing_keys(configs) == ["engine.autoencoder.latent", "generate.path"]


def test_what_follows_from_another_type_is_not_named():
    diffusion = {"engine": {"generator": {"type": "diffusion", "width": 8, "timesteps": 1000}}}
    gan = {"engine": {"generator": {"type": "gan", "width": 8, "critic": 3}}}
    assert differing_keys([diffusion, gan]) == ["engine.generator.type"]
    more = {"engine": {"generator": {"type": "gan", "width": 8, "critic": 5}}}
    assert differing_keys([diffusion, gan, more]) == ["engine.generator.type", "engine.generator.critic"]


def test_section_that_only_some_have_hides_what_follows_from_its_type():
    ddim = {"sampler": {"type": "DDIM", "steps": 50}}
    heun, none = {"sampler": {"type": "Heun", "steps": 25}}, {"sampler": None}
    assert differing_keys([ddim, heun, none]) == ["sampler"]
    assert differing_keys([ddim, {"sampler": {"type": "DDIM", "steps": 10}}, none]) == ["sampler.steps", "sampler"]


def test_section_that_another_config_has_not_is_one_key(run):
    configs = [{"fit": {"decoder": None}}, {"fit": {"decoder": {"steps": 5, "lr": 0.1}}}]
    assert differing_keys(configs) == ["fit.decoder"]
    configs = [{"a": {"swag": {"type": "swag"}}}, {"a": {"swag": None}}]
    assert differing_keys(configs) == ["a.swag"]
    groups = group_runs(read_runs([run(name, config) for name, config in zip("xy", configs, strict=True)]))
    assert [value_text(group.values["a.swag"]) for group in groups] == ["swag", "null"]


@pytest.mark.parametrize(
    ("value", "text"), [(8, "8"), (None, "null"), (True, "true"), ([1, None], "[1, null]"), ({"steps": 5}, "given")]
)
def test_values_are_told_as_a_config_has_them(value, text):
    assert value_text(value) == text


def test_short_names_are_the_shortest_ends_that_tell_keys_apart():
    keys = ["engine.autoencoder.latent", "engine.autoencoder_training.steps", "engine.generator_training.steps"]
    ends = ["latent", "autoencoder_training.steps", "generator_training.steps"]
    assert short_names(keys) == dict(zip(keys, ends, strict=True))
    assert short_names(["seed", "fit.seed"]) == {"seed": "seed", "fit.seed": "fit.seed"}
    assert short_names(["fit.num"]) == {"fit.num": "num"}


def test_figures_are_flat(compared):
    (read,) = read_runs([compared("one")])
    found = figures(read)
    assert (found["metric"], found["verdict_kind"], found["failed_gates"]) == ("accuracy", "average-like", "codec")
    assert (found["generated.mean"], found["soup.similarity"], found["seconds.fit"]) == (0.51, None, 10.0)
    assert [found[key] for key in ("gain", "gain_low", "gain_high")] == pytest.approx([0.02, 0.0, 0.04])
    assert found["strongest"] == "soup"
    assert found["gain_over_strongest"] == pytest.approx(-0.02)


def test_figures_over_conditions_have_every_gain_over_the_oracle(compared_over_conditions):
    (read,) = read_runs([compared_over_conditions("one")])
    found = figures(read)
    assert (found["best_source"], found["failed_gates"], found["ridge.mean"]) == ("ridge", "", 0.76)
    assert found["gain"] == found["ridge.to_oracle"] == pytest.approx(-0.05)
    assert found["generated.to_oracle_high"] == pytest.approx(-0.09)
    assert found["soup.to_oracle"] is None


def test_values_that_short_texts_do_not_tell_apart_have_whole_ones():
    flows = [{"type": "flow", "noise_scale": 1.0}, {"type": "flow", "noise_scale": 0.5}]
    assert value_texts([*flows, {"type": "vae"}, None]) == [
        "{type: flow, noise_scale: 1.0}", "{type: flow, noise_scale: 0.5}", "vae", "null",
    ]  # fmt: skip
    assert value_texts([[{"type": "a", "x": 1}], [{"type": "a", "x": 2}]]) == ["[{type: a, x: 1}]", "[{type: a, x: 2}]"]
    assert value_texts([{"type": "flow"}, {"type": "flow"}]) == ["flow", "flow"]


def test_seeds_are_no_column_also_where_they_are_asked_for(compared):
    paths = [compared(f"seed={seed}") for seed in (0, 1)]
    for seed, path in enumerate(paths):
        (path / "config.yaml").write_text(f"plugin: classification\nseed: 0\nfit: {{seed: {seed}, num: 5}}\n")
    (group,) = group_runs(read_runs(paths), ["fit.seed", "fit.num"])
    assert (group.values, len(group.runs)) == ({"fit.num": 5}, 2)
