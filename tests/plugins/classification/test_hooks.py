"""The hooks of the plugin, as the core calls them."""

import math

import pytest
import torch
from pdiff_plugins.images.data import Split
from PIL import Image

from pdiff.run.config import resolve
from pdiff.runtime.errors import PdiffError
from pdiff.task.plugins import load_plugin
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout

HOOK = load_plugin("classification").hook


@pytest.fixture
def config(tiny) -> dict:
    """The tiny config with small images and batches that do not divide the splits."""
    tiny["device"] = "cpu"
    tiny["task"]["data"].update(size=16, train=1400, select=300)
    tiny["task"]["eval_batch"] = 64
    return tiny


@pytest.fixture
def task(config):
    """Return a task whose network is trained enough to be right now and then."""
    task = HOOK.build(cfg=resolve(config), folder=None)
    images, labels = task.splits["train"].pixels(slice(0, 256)), task.splits["train"].labels[:256]
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(task.model(task.splits["train"].resized(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return task


def test_facts_name_the_classes_of_a_folder_in_the_order_of_the_labels(config, tmp_path):
    for part, count in (("train", 3), ("test", 1)):
        for label in ("9", "10"):
            (tmp_path / part / label).mkdir(parents=True)
            for index in range(count):
                Image.new("L", (8, 8), 20 * index + int(label)).save(tmp_path / part / label / f"{index}.png")
    for order, expected in (("name", ["10", "9"]), ("number", ["9", "10"])):
        data = {"type": "folder", "path": str(tmp_path), "size": 8, "select": 2, "order": order}
        config["task"] = {"network": {"type": "mlp", "hidden": [4]}, "data": data}
        assert HOOK.build(cfg=resolve(config), folder=None).facts["classes"] == expected


def test_single_class_is_refused(config, tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8), 20 * index).save(tmp_path / part / "cat" / f"{index}.png")
    config["task"]["data"] = {"type": "folder", "path": str(tmp_path), "size": 8, "select": 1}
    with pytest.raises(
        PdiffError, match=r"^task\.data: got the single class 'cat', expected two or more\. Give a folder"
    ):
        HOOK.build(cfg=resolve(config), folder=None)


def candidates_of(task, count: int = 4) -> Candidates:
    """Return the last two normalisations with more and more noise in them."""
    names = HOOK.select_params(task=task, cfg=resolve({"select": "last_norms(2)"}))
    layout = Layout.of(task.model.state_dict(), names)
    base = layout.flatten(task.model.state_dict())
    noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
    return Candidates(base + torch.arange(count)[:, None] * 0.5 * noise, layout, HOOK.load_params)


def evaluate(task, candidates, split="test", ensembles=()) -> list:
    """Return what `evaluate` yields."""
    return list(HOOK.evaluate(task=task, candidates=candidates, split=split, ensembles=ensembles))


def ensemble(task, candidates):
    """Return what all candidates reach together."""
    (result,) = evaluate(task, candidates.take([]), ensembles=[candidates])
    return result


def assert_same(ones, others) -> None:
    """Assert that evaluations are equal bit for bit."""
    for one, other in zip(ones, others, strict=True):
        assert one.metric == other.metric
        assert torch.equal(one.signature, other.signature)
        assert torch.equal(one.scores, other.scores)


def test_build_says_what_the_network_and_its_metric_are(config):
    task = HOOK.build(cfg=resolve(config), folder=None)
    assert (task.metric.name, task.metric.higher_is_better) == ("accuracy", True)
    assert tuple(task.splits) == ("train", "select", "test")
    assert task.head == ("fc",)
    assert task.model.fc.out_features == 10


def test_build_gives_the_same_network_for_the_same_seed_and_leaves_the_random_state(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = HOOK.build(cfg=resolve(config), folder=None).model.state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = HOOK.build(cfg=resolve(config), folder=None).model.state_dict()
    other = HOOK.build(cfg=resolve({**config, "seed": 1}), folder=None).model.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("netwrok", r"^task: got unknown key 'netwrok'\. Did you mean 'network'\? Known: conditions, data, eval"),
        ("seed", r"^task: got unknown key 'seed'"),
    ],
)
def test_build_refuses_unknown_keys(config, key, line):
    config["task"][key] = 1
    with pytest.raises(PdiffError, match=line):
        HOOK.build(cfg=resolve(config), folder=None)


def test_build_names_what_is_missing(config):
    del config["task"]["network"]
    with pytest.raises(PdiffError, match=r"^task: missing a required argument: 'network'"):
        HOOK.build(cfg=resolve(config), folder=None)


@pytest.mark.parametrize("key", ["finetunes", "state", "names"])
def test_collect_refuses_unknown_keys(config, key):
    config["collect"][key] = 1
    task = HOOK.build(cfg=resolve(config), folder=None)
    with pytest.raises(PdiffError, match=rf"^collect: got unknown key '{key}'.* Known: branches, finetune, seeds, tr"):
        HOOK.collect(task=task, names=["fc.weight"], cfg=resolve(config), state=None, folder=None, branch=None)


@pytest.mark.parametrize("split", ["select", "test"])
def test_accuracy_is_the_mean_of_the_scores_and_the_share_not_in_the_signature(task, split):
    evaluations = evaluate(task, candidates_of(task), split)
    assert len(evaluations) == 4
    for evaluation in evaluations:
        assert evaluation.signature.dtype == torch.bool
        assert evaluation.signature.shape == evaluation.scores.shape == (len(task.splits[split]),)
        assert evaluation.metric == evaluation.scores.double().mean().item()
        assert evaluation.metric == pytest.approx(1 - evaluation.signature.double().mean().item())
    assert evaluations[0].metric > 0.2
    assert len({evaluation.metric for evaluation in evaluations}) > 1


def test_accuracy_is_that_of_the_network_with_the_candidate_in_it(task):
    candidates, data = candidates_of(task), task.splits["test"]
    for index, evaluation in enumerate(evaluate(task, candidates)):
        candidates.load(task.model, index)
        with torch.no_grad():
            predictions = [task.model.eval()(images).argmax(1) for _, images, _ in data.batches()]
        assert torch.equal(torch.cat(predictions) != data.labels, evaluation.signature)


def test_evaluation_is_repeatable_and_needs_no_eval_mode(task):
    candidates = candidates_of(task)
    first = evaluate(task, candidates)
    task.model.train()
    assert_same(evaluate(task, candidates), first)


def test_evaluation_does_not_depend_on_the_order_or_the_company_of_candidates(task):
    candidates = candidates_of(task)
    together = evaluate(task, candidates)
    order = [2, 0, 3, 1]
    shuffled = candidates.take(order)
    assert_same(evaluate(task, shuffled), [together[index] for index in order])
    alone = candidates.take(slice(3, None))
    assert_same(evaluate(task, alone), together[3:])


@pytest.mark.parametrize("eval_batch", [1, 50, 1000])
def test_evaluation_does_not_depend_on_the_size_of_its_batches(task, eval_batch):
    candidates = candidates_of(task, 2)
    before = evaluate(task, candidates)
    task.splits["test"].eval_batch = eval_batch
    assert_same(evaluate(task, candidates), before)


def test_evaluation_changes_the_selection_only(task):
    candidates = candidates_of(task)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    evaluate(task, candidates)
    for name, tensor in task.model.state_dict().items():
        assert name in candidates.layout.names or torch.equal(tensor, before[name])


def test_no_candidates_are_no_evaluations(task):
    candidates = candidates_of(task)
    assert evaluate(task, candidates.take([])) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_candidate_with_one_tensor_that_is_not_finite_is_dead_and_spoils_no_other(task, value):
    candidates = candidates_of(task)
    first = evaluate(task, candidates)
    candidates.vectors[1, 0] = value
    found = evaluate(task, candidates)
    assert found[1].metric == -math.inf
    assert not found[1].scores.any()
    assert found[1].signature.all()
    assert_same([found[0], *found[2:]], [first[0], *first[2:]])


def test_an_ensemble_with_a_dead_member_is_dead(task):
    candidates = candidates_of(task)
    assert math.isfinite(ensemble(task, candidates).metric)
    candidates.vectors[1, 0] = math.nan
    evaluation = ensemble(task, candidates)
    assert evaluation.metric == -math.inf
    assert evaluation.scores.shape == (len(task.splits["test"]),)


def test_seed_of_the_run_draws_the_splits_unless_the_data_have_one(config):
    def labels(seed: int) -> torch.Tensor:
        return HOOK.build(cfg=resolve({**config, "seed": seed}), folder=None).splits["test"].labels

    drawn = labels(0)
    assert torch.equal(drawn, labels(0))
    assert not torch.equal(drawn, labels(1))
    config["task"]["data"]["seed"] = 0
    assert torch.equal(drawn, labels(1))


def test_an_ensemble_of_one_is_that_candidate(task):
    candidates = candidates_of(task)
    alone = candidates.take([2])
    assert_same([ensemble(task, alone)], [evaluate(task, candidates)[2]])


def test_ensembles_and_candidates_share_one_pass_over_the_split_and_its_frozen_prefix(task, monkeypatch):
    candidates, batches, first, taken, ran = candidates_of(task), Split.batches, task.model.conv1, [], []
    alone = [*evaluate(task, candidates), ensemble(task, candidates)]
    forward = type(first).forward

    def counted(module, images):
        ran.extend([images] if module is first else [])
        return forward(module, images)

    monkeypatch.setattr(Split, "batches", lambda data: taken.append(data) or batches(data))
    monkeypatch.setattr(type(first), "forward", counted)
    assert_same(evaluate(task, candidates, ensembles=[candidates]), alone)
    assert len(taken) == 1
    assert len(ran) == task.splits["test"].num_batches()


def test_an_ensemble_averages_class_probabilities(task):
    candidates, data = candidates_of(task), task.splits["test"]
    total = torch.zeros(len(data), data.classes)
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        with torch.no_grad():
            total += torch.cat([task.model.eval()(images).softmax(1) for _, images, _ in data.batches()])
    evaluation = ensemble(task, candidates)
    assert torch.equal(evaluation.signature, total.argmax(1) != data.labels)


def test_network_that_cannot_take_the_size_is_refused_before_any_training(tiny):
    tiny["task"]["network"]["name"] = "vit_tiny_patch16_224"
    tiny["task"]["data"]["size"] = 32
    with pytest.raises(PdiffError, match=r"task.data.size: the network cannot take images of 32 pixels"):
        HOOK.build(cfg=resolve(tiny), folder=None)


def test_inputs_are_the_images_of_the_split_as_the_network_takes_them(task):
    batches = list(HOOK.inputs(task=task, split="select"))
    assert [len(images) for (images,) in batches] == [64, 64, 64, 64, 44]
    assert torch.equal(batches[1][0], list(task.splits["select"].batches())[1][1])
    assert task.model(*batches[-1]).shape == (44, 10)


def test_inputs_under_conditions_are_those_of_one_after_another(config):
    config["task"]["conditions"] = {"type": "rotation", "angles": [0, 90, 2]}
    config["task"]["network"] = {"type": "mlp", "hidden": [4]}
    task = HOOK.build(cfg=resolve(config), folder=None)
    data = task.splits["select"]
    batches = list(HOOK.inputs(task=task, split="select"))
    for number, (images,) in enumerate(batches[:3]):
        rows = slice(64 * number, 64 * number + 64)
        assert torch.equal(images, data.inputs(rows, data.table.values[[number % 2]])[0])
