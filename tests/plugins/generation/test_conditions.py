"""Generators for sets of classes: what is trained, what is measured, what is refused."""

import math

import numpy as np
import pytest
import torch
import yaml
from pdiff_plugins.generation.denoising import Noisy
from pdiff_plugins.generation.evaluation import shown_of_asked
from pdiff_plugins.generation.jackknife import Jackknife
from pdiff_plugins.generation.many import pool_of
from pdiff_plugins.images.class_sets import members

from pdiff import Candidates, Conditions, Layout, PdiffError, unpack
from pdiff.run.config import resolve
from pdiff.task.plugins import load_plugin
from pdiff.testing import check_plugin

HOOK = load_plugin("generation").hook
NAMES = [str(digit) for digit in range(10)]


@pytest.fixture
def tiny_sets(tiny_generator) -> dict:
    """The values of the tiny config with seven sets of digits, to be changed at will."""
    tiny_generator["select"] = "norms"
    tiny_generator["collect"] = {
        "conditions": {"type": "classes", "subsets": 7, "size": [3, 5]},
        "train": {"epochs": 1, "batch_size": 48},
        "networks": {"steps": 2, "batch_size": 6, "lr": 1e-2},
        "together": 3,
    }
    return tiny_generator


def sets(*classes: str) -> Conditions:
    """Return sets of digits, each written as one text, as conditions."""
    return Conditions.of([{f"classes.{name}": float(name in chosen) for name in NAMES} for chosen in classes])


def candidates_for(task, conditions: Conditions) -> Candidates:
    """Return a candidate for each condition, with more and more noise in the norms of the network."""
    layout = Layout.of(
        task.model.state_dict(), HOOK.select_params(task=task, cfg=resolve({"plugin": "generation", "select": "norms"}))
    )
    noise = torch.randn(len(conditions), layout.size, generator=torch.Generator().manual_seed(0))
    vectors = layout.flatten(task.model.state_dict()) + 0.1 * torch.arange(len(conditions))[:, None] * noise
    return Candidates(vectors, layout, HOOK.load_params, conditions)


def evaluate(task, candidates, split: str = "test") -> list:
    """Return what `evaluate` yields."""
    return list(HOOK.evaluate(task=task, candidates=candidates, split=split, ensembles=()))


def collected(config: dict, build, state=None, branch=None, base=None):
    """Return the snapshots of a collection, the task, and the network at the first of them."""
    cfg, task = resolve(config), build(config)
    if base is not None:
        task.model.load_state_dict(base)
    names, found = HOOK.select_params(task=task, cfg=cfg), []
    for snapshot in HOOK.collect(task=task, names=names, cfg=cfg, state=state, folder=None, branch=branch):
        if snapshot.params and base is None:
            base = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
        found.append(snapshot)
    return found, task, base


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_fid_is_that_to_the_real_images_of_the_set_alone(build, tiny_sets):
    task = build(tiny_sets)
    bench = task.splits["test"]
    asked = sets("012", "3456", "012")
    group = candidates_for(task, asked)
    for index, (found, labels) in enumerate(zip(evaluate(task, group), members(NAMES, asked), strict=True)):
        group.load(task.model, index)
        with torch.no_grad():
            images = torch.cat([bench.sampler(task.model, x) for x in bench.noise.split(12)]).clamp(-1, 1)
        real = [features for features, label in zip(bench.real, bench.split.labels, strict=True) if label in labels]
        features, probabilities = bench.features(images)
        expected = Jackknife(torch.stack(real), 4, bench.seed)(features)
        assert torch.allclose(found.scores, expected)
        share = np.isin(probabilities.argmax(1).numpy(), labels).mean()
        assert found.details["share"] == pytest.approx(share)
        assert sum(found.condition[f"classes.{label}"] for label in labels) == pytest.approx(share * len(labels))
        assert found.condition.keys() == set(asked.names)


def test_evaluation_of_many_is_that_of_each_alone_bit_for_bit(build, tiny_sets):
    task = build(tiny_sets)
    group = candidates_for(task, sets("012", "3456", "012", "789"))
    alone = [evaluate(task, group.take([index]))[0] for index in range(4)]
    for one, other in zip(evaluate(task, group), alone, strict=True):
        assert (one.metric, one.details, one.condition) == (other.metric, other.details, other.condition)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.signature, other.signature)


def test_signature_does_not_depend_on_the_condition_and_the_denoising_loss_does(build, tiny_sets):
    task = build(tiny_sets)
    group = candidates_for(task, sets("012"))
    other = Candidates(group.vectors, group.layout, group.load_params, sets("3456"))
    one, two = evaluate(task, group)[0], evaluate(task, other)[0]
    assert torch.equal(one.signature, two.signature)
    assert one.details["denoising_loss"] != two.details["denoising_loss"]
    assert one.metric != two.metric


def test_network_that_obeys_measures_its_own_condition():
    shown = torch.zeros(4)
    shown[[0, 2]] = 0.5
    assert shown_of_asked(shown, "abcd", [0, 2]) == {
        "classes.a": 1.0, "classes.b": 0.0, "classes.c": 1.0, "classes.d": 0.0
    }  # fmt: skip


def test_chance_is_the_mean_over_the_sets(build, tiny_sets):
    tiny_sets["collect"]["conditions"] = {"type": "classes", "subsets": [["0", "1", "2"], ["5", "6", "7", "8"]]}
    task = build(tiny_sets)
    bench = task.splits["test"]
    features = torch.cat([bench.features(batch.clamp(-1, 1))[0] for batch in bench.noise.split(12)])
    each = [reference.jackknife(features).mean() for reference in bench.references(sets("012", "5678"))]
    assert task.metric.chance == torch.stack(each).mean().item()
    assert task.facts["classes"] == NAMES


def test_dead_candidate_measures_no_condition(build, tiny_sets):
    task = build(tiny_sets)
    group = candidates_for(task, sets("012", "345"))
    group.vectors[1] = math.nan
    found = evaluate(task, group)
    assert found[1].metric == math.inf
    assert found[1].condition is None
    assert found[0].metric < math.inf


def test_candidates_without_conditions_or_of_other_names_are_refused(build, tiny_sets):
    task = build(tiny_sets)
    group = candidates_for(task, sets("012"))
    with pytest.raises(PdiffError, match=r"^evaluate: got candidates without conditions, expected classes\.0, "):
        evaluate(task, Candidates(group.vectors, group.layout, group.load_params))
    with pytest.raises(PdiffError, match=r"^condition: got the names angle, expected classes\.0, "):
        evaluate(task, Candidates(group.vectors, group.layout, group.load_params, Conditions.of([{"angle": 1.0}])))


def test_export_refuses_the_empty_set(build, tiny_sets):
    task = build(tiny_sets)
    task.for_condition(task.model, sets("3")[0])
    with pytest.raises(PdiffError, match=r"^condition: got the set of no class"):
        task.for_condition(task.model, sets("")[0])


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        ({"type": "weather", "subsets": 3}, r"^collect\.conditions\.type: got 'weather', expected 'classes', as "),
        ({"type": "classes", "subset": 3}, r"^collect\.conditions: got unknown key 'subset'"),
        ({"type": "classes", "subsets": [["0", "cat"]]}, r"^collect\.conditions\.subsets\[0\]: got the class 'cat'"),
        ({"type": "classes", "subsets": [[]]}, r"^collect\.conditions\.subsets\[0\]: got an empty set"),
        (
            {"type": "classes", "subsets": [["0", "1", "2"], ["7"]]},
            r"^collect\.conditions: the set 7 has [67] real images in the split select, too few for the FID, expected "
            r"at least 10 for 6 features and 4 groups\. Lower task\.features\.size or task\.groups, or raise",
        ),
    ],
)
def test_unsound_conditions_end_a_run_before_it_trains(build, tiny_sets, conditions, line):
    tiny_sets["collect"]["conditions"] = conditions
    with pytest.raises(PdiffError, match=line):
        build(tiny_sets)


def test_class_without_images_in_a_split_is_refused(build, tiny_sets, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels % 2}
    np.savez(tmp_path / "data.npz", **arrays)
    tiny_sets["task"]["data"] = {"type": "npz", "path": str(tmp_path / "data.npz"), "size": 8, "select": 20}
    tiny_sets["collect"]["conditions"] = {"type": "classes", "subsets": [["0", "2"]]}
    line = r"^collect\.conditions: got a set with the class '2', expected images of it .* but test has none"
    with pytest.raises(PdiffError, match=line):
        build(tiny_sets)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"together": 0}, r"^collect\.together: got 0, expected an integer from 1 on"),
        ({"finetune": {}}, r"^collect: got unknown key 'finetune'"),
        ({"networks": {"steps": 0}}, r"^collect\.networks\.steps: got 0, expected an integer from 1 on"),
        ({"networks": {"steps": 1, "mode": "test"}}, r"^collect\.networks\.mode: got 'test'"),
        ({"networks": {"epochs": 1}}, r"^collect\.networks: got unknown key 'epochs'"),
    ],
)
def test_unsound_settings_of_the_collection_are_refused_before_the_base_is_trained(build, tiny_sets, change, line):
    tiny_sets["collect"] |= change
    with pytest.raises(PdiffError, match=line):
        collected(tiny_sets, build)


def test_collection_yields_a_network_for_each_set_and_leaves_the_base_in_the_model(build, tiny_sets):
    snapshots, task, base = collected(tiny_sets, build)
    networks = [snapshot for snapshot in snapshots if snapshot.params]
    assert [snapshot.provenance["branch"] for snapshot in networks] == list(range(7))
    assert {snapshot.provenance["network"] for snapshot in networks} == {0}
    assert all(snapshot.provenance["loss"] > 0 for snapshot in networks)
    assert len({tuple(snapshot.condition.values()) for snapshot in networks}) == 7
    assert equal(task.model.state_dict(), base)
    assert equal(unpack(networks[0].state)["base"], {name: base[name] for name in networks[0].params})
    assert not any(equal(snapshot.params, networks[0].params) for snapshot in networks[1:])


def test_collection_that_goes_on_from_any_state_yields_the_same(build, tiny_sets):
    through, _, base = collected(tiny_sets, build)
    for place, snapshot in enumerate(through):
        if snapshot.state is not None:
            known = base if snapshot.params else None
            resumed, _, _ = collected(tiny_sets, build, snapshot.state, base=known)
            assert [s.provenance for s in resumed] == [s.provenance for s in through[place + 1 :]]
            assert all(equal(a.params, b.params) for a, b in zip(resumed, through[place + 1 :], strict=True))


def test_network_is_the_same_whichever_are_trained_with_it_and_in_whichever_process(build, tiny_sets):
    through, _, base = collected(tiny_sets, build)
    first = next(snapshot for snapshot in through if snapshot.params)
    assert list(HOOK.branches(cfg=resolve(tiny_sets))) == [0, 0, 0]
    second, _, _ = collected(tiny_sets, build, first.state, branch=1, base=base)
    assert [snapshot.provenance["branch"] for snapshot in second] == [3, 4, 5]
    tiny_sets["collect"]["together"] = 7
    whole, _, _ = collected(tiny_sets, build)
    assert all(equal(one.params, other.params) for one, other in zip(whole, through, strict=True))
    assert equal(second[0].params, whole[1 + 3].params)


def test_fine_tuning_in_as_many_steps_makes_what_the_collection_made(build, tiny_sets):
    through, task, _ = collected(tiny_sets, build)
    networks, cfg = [snapshot for snapshot in through if snapshot.params], resolve(tiny_sets)
    given = {"names": list(networks[0].params), "cfg": cfg, "start": unpack(networks[0].state)["base"]}
    some = Conditions.of([networks[place].condition for place in (5, 0)])
    made = list(HOOK.finetune(task=task, conditions=some, steps=2, **given))
    assert equal(made[0], networks[5].params)
    assert equal(made[1], networks[0].params)
    fewer = list(HOOK.finetune(task=task, conditions=some, steps=1, **given))
    assert not equal(fewer[0], made[0])


def test_images_that_a_set_takes_of_a_step_are_shared_with_those_of_another(build, tiny_sets):
    task = build(tiny_sets)
    torch.manual_seed(0)
    labels, pool = pool_of(task.splits["train"], 4, torch.clone, task.model.noise_schedule)
    assert labels.bincount().tolist() == [4] * 10
    assert isinstance(pool, Noisy)
    assert pool.noisy.shape == (40, 1, 8, 8)
    torch.manual_seed(0)
    order = torch.randperm(96)
    drawn = [row for row in order.tolist() if task.splits["train"].labels[row] in (1, 7)][:4]
    mine = torch.isin(labels, torch.tensor([1, 7])).nonzero().flatten()[:4]
    assert labels[mine].tolist() == task.splits["train"].labels[drawn].tolist()


def test_pictures_show_sources_below_each_other_and_conditions_side_by_side(build, tiny_sets, tmp_path):
    task = build(tiny_sets)
    group = candidates_for(task, sets("012", "3456"))
    pictures = HOOK.draw(task=task, picks={"oracle": group, "generated": group}, folder=tmp_path)
    names = ["images_real.png", "one_noise_many_conditions.png", "many_noises_many_conditions.png"]
    assert [picture.file for picture in pictures] == names
    assert "generated" in pictures[2].caption
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_generation_under_conditions_keeps_the_rules(tmp_path, tiny_sets):
    tiny_sets["evaluate"] = {}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_sets))
    findings = check_plugin("generation", str(tmp_path / "tiny.yaml"))
    assert [finding.line for finding in findings if finding.state == "failed"] == []
    loss = next(finding for finding in findings if finding.check == "loss")
    assert loss.line.endswith("; the first step of finetune goes against it for 4 conditions")
