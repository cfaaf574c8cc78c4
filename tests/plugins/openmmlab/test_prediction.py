"""Predictions of many candidates: those that each makes alone, bit for bit, in order, and nothing else is changed."""

import dataclasses

import pytest
import torch

pytest.importorskip("mmdet")

from pdiff_plugins.openmmlab.data import build_splits
from pdiff_plugins.openmmlab.prediction import check_prediction, predictions, watch_outputs
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pdiff.runtime.errors import PdiffError
from pdiff.task.defaults import LoadParams
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout
from pdiff.weights.select import select

KEYS = ("bboxes", "scores", "labels")
SELECTORS = ["head", "last_norms(2)", "module(bbox_head.conv_cls)", "module(backbone.layer3.1.bn2)+buffers", "all"]
CANDIDATES, BATCHES = 3, 2


@pytest.fixture
def model(tiny_task):
    """Return a detector that sees something everywhere."""
    return tiny_task({"model.test_cfg.score_thr": 0.0}).model


@pytest.fixture
def split(splits):
    """Return four images in batches of three."""
    split = splits["test"]
    return dataclasses.replace(split, loader={**split.loader, "batch_size": 3})


def candidates_of(model, selector: str = "head") -> Candidates:
    """Return the selection with more and more noise in it."""
    layout = Layout.of(model.state_dict(), select(model, selector, ["bbox_head"]))
    base = layout.flatten(model.state_dict())
    noise = torch.randn(CANDIDATES, layout.size, generator=torch.Generator().manual_seed(0)).abs()
    return Candidates(base + torch.arange(CANDIDATES)[:, None] * 0.02 * noise, layout, LoadParams().load_params)


def read(samples) -> list[dict[str, Tensor]]:
    """Return the detections on each image."""
    return [{key: sample.pred_instances[key] for key in KEYS} for sample in samples]


def identical(ones, others) -> bool:
    """Say whether detections are the same, bit for bit."""
    pairs = list(zip(ones, others, strict=True))
    return all(torch.equal(one[key], other[key]) for one, other in pairs for key in KEYS)


@pytest.mark.parametrize("selector", SELECTORS)
def test_predictions_are_those_that_each_candidate_makes_alone(model, split, selector):
    candidates = candidates_of(model, selector)
    found = list(predictions(model, split, candidates, "test", read))
    seen = []
    for batch in split.batches():
        for index in range(CANDIDATES):
            candidates.load(model, index)
            with torch.no_grad():
                seen.append((index, read(model.eval().test_step(batch))))
    assert [index for index, _, _ in found] == [index for index, _ in seen]
    assert all(identical(one[2], other[1]) for one, other in zip(found, seen, strict=True))
    assert all(len(detections["scores"]) > 0 for _, _, batch in found for detections in batch)
    assert not any(identical(found[0][2], found[index][2]) for index in range(1, CANDIDATES))


def test_batches_come_one_after_another_and_in_each_the_candidates(model, split):
    found = list(predictions(model, split, candidates_of(model), "test", read))
    assert [index for index, _, _ in found] == list(range(CANDIDATES)) * BATCHES
    images = [[truth.img_id for truth in truths] for _, truths, _ in found]
    assert images == [[1, 2, 3]] * CANDIDATES + [[4]] * CANDIDATES
    assert [len(detections) for _, _, detections in found] == [3] * CANDIDATES + [1] * CANDIDATES


ANNOTATED = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": [64, 64]},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackDetInputs", "meta_keys": ["img_id", "ori_shape", "img_shape", "scale_factor"]},
]


def test_ground_truths_are_as_they_were(mmdet, tiny_config, model):
    options = {"test_dataloader.dataset.pipeline": ANNOTATED, "test_dataloader.batch_size": 3}
    split = build_splits(mmdet, tiny_config(options), 0)["test"]
    with torch.no_grad():
        expected = [model.data_preprocessor(batch, False)["data_samples"] for batch in split.batches()]
    for number, (_, truths, _) in enumerate(predictions(model, split, candidates_of(model), "test", read)):
        for truth, untouched in zip(truths, expected[number // CANDIDATES], strict=True):
            assert "pred_instances" not in truth
            assert truth.keys() == untouched.keys()
            assert truth.metainfo_keys() == untouched.metainfo_keys()
            assert len(truth.gt_instances.labels) > 0
            assert torch.equal(truth.gt_instances.bboxes, untouched.gt_instances.bboxes)
            assert torch.equal(truth.gt_instances.labels, untouched.gt_instances.labels)


def test_frozen_part_runs_once_for_each_batch(model, split):
    calls = {"frozen": 0, "selected": 0}

    def count(name: str):
        return lambda *_: calls.update({name: calls[name] + 1})

    model.backbone.conv1.register_forward_hook(count("frozen"))
    model.bbox_head.register_forward_hook(count("selected"))
    list(predictions(model, split, candidates_of(model), "test", read))
    assert calls == {"frozen": BATCHES, "selected": BATCHES * CANDIDATES}


def test_only_the_selection_of_the_network_is_changed(model, split):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    candidates = candidates_of(model)
    list(predictions(model.train(), split, candidates, "test", read))
    assert not model.training
    for name, tensor in model.state_dict().items():
        expected = candidates[CANDIDATES - 1].get(name, before[name])
        assert torch.equal(tensor, expected)


def test_predictions_do_not_depend_on_the_company_of_a_candidate(model, split):
    candidates = candidates_of(model)
    together = list(predictions(model, split, candidates, "test", read))
    alone = candidates.take(slice(2, None))
    found = list(predictions(model, split, alone, "test", read))
    assert all(identical(one[2], other[2]) for one, other in zip(found, together[2::CANDIDATES], strict=True))


def test_no_candidates_are_no_predictions(model, split):
    candidates = candidates_of(model)
    none = candidates.take([])
    assert list(predictions(model, split, none, "test", read)) == []


def test_predictions_that_are_left_early_leave_a_network_that_works(model, split):
    candidates = candidates_of(model)
    through = list(predictions(model, split, candidates, "test", read))
    left = predictions(model, split, candidates, "test", read)
    next(left)
    left.close()
    again = list(predictions(model, split, candidates, "test", read))
    assert all(identical(one[2], other[2]) for one, other in zip(again, through, strict=True))


def test_a_network_whose_parts_do_not_fit_is_refused_by_a_check(model, split):
    model.neck.lateral_convs[0].conv = torch.nn.Conv2d(3, 16, 1)
    line = r"^task\.model\.config: its network cannot predict a batch of the test data \(RuntimeError: .*\)\. Make the"
    with pytest.raises(PdiffError, match=line):
        check_prediction(model, split)


def test_a_check_predicts_one_batch_and_changes_nothing(model, split):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = []
    model.backbone.register_forward_hook(lambda module, inputs, _: seen.append((module.training, len(inputs[0]))))
    check_prediction(model.train(), split)
    assert seen == [(False, 3)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_outputs_are_finite_since_the_last_time_that_was_asked():
    module = nn.Identity()
    with watch_outputs([module]) as finite:
        assert finite()
        for value, answer in ((1.0, True), (torch.nan, False), (torch.inf, False), (1.0, True)):
            module({"scores": [torch.zeros(2), torch.tensor([0.0, value])], "name": "x"})
            module(torch.zeros(2))
            assert finite() == answer


def test_outputs_of_a_list_of_modules_are_those_of_its_members():
    modules = nn.ModuleList([nn.Identity(), nn.Identity()])
    with watch_outputs([modules]) as finite:
        modules[1](torch.tensor(torch.nan))
        assert not finite()


def test_modules_are_watched_no_longer_than_told():
    module = nn.Identity()
    with pytest.raises(KeyError), watch_outputs([module]):
        raise KeyError
    assert not module._forward_hooks


def test_inputs_are_what_the_network_takes_up_to_its_head(case):
    model = case.task.model.eval()
    batch = next(iter(case.hook.inputs(task=case.task, split="train")))
    with torch.no_grad():
        once, again = (tree_leaves(model(*batch)) for _ in range(2))
    assert len(once) > 0
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
