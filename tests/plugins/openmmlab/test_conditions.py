"""Sets of classes as conditions, bound to the data of a detector and of a segmentor, and what stays of a sample."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from pdiff_plugins.openmmlab.classes import Classes, background_label
from pdiff_plugins.openmmlab.conditions import build_kind, only

from pdiff import PdiffError, Task
from pdiff.plan import make_plan
from pdiff.run.config import resolve


@pytest.fixture(scope="module")
def counts(mmdet, splits) -> dict[str, np.ndarray]:
    """How many objects of each class the few scenes have, by split."""
    from pdiff_plugins.openmmlab.classes import count_objects

    return {name: count_objects(split.dataset, 10) for name, split in splits.items()}


@pytest.fixture(scope="module")
def present(counts) -> list[str]:
    """The classes that each split of the few scenes has objects of."""
    return [str(label) for label in range(10) if all(count[label] for count in counts.values())]


@pytest.fixture(scope="module")
def absent(counts) -> list[tuple[str, str]]:
    """The classes that a split lacks, each with the first such split."""
    lacking = {str(label): name for name in reversed(counts) for label in range(10) if not counts[name][label]}
    return sorted(lacking.items())


@pytest.fixture
def datasets(splits) -> dict:
    """The data set of each split."""
    return {name: split.dataset for name, split in splits.items()}


def conditional(case, **conditions) -> Task:
    """Return the task of a tiny config with conditions, on scenes that have every class."""
    values = case.values()
    values["task"]["data"]["scenes"] |= {"train": 24, "select": 24, "test": 24}
    values["collect"]["conditions"] = {"type": "classes", **conditions}
    return case.build(values)


def test_the_number_of_conditions_is_known_without_data():
    assert len(build_kind({"type": "classes", "subsets": 120, "size": [1, 5]}, 0)) == 120
    assert len(build_kind({"type": "classes", "subsets": [["0"], ["1", "2"]]}, 0)) == 2


@pytest.mark.parametrize(
    ("cfg", "line"),
    [
        ({"type": "clases", "subsets": 3}, "collect.conditions.type: got 'clases'. Did you mean 'classes'?"),
        ({"type": "classes"}, "collect.conditions: missing a required argument: 'subsets'."),
        ({"type": "classes", "subsets": 0}, "collect.conditions.subsets: got 0, expected how many sets"),
        ({"type": "classes", "subsets": 3, "sise": 1}, "collect.conditions: got unknown key 'sise'. Did you mean"),
        ("classes", "collect.conditions: got 'classes', expected a section."),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_data_are_there(cfg, line):
    with pytest.raises(PdiffError) as caught:
        build_kind(cfg, 0)
    assert str(caught.value).startswith(line)


def test_a_kind_is_bound_to_the_classes_of_the_data(datasets, present):
    kind = Classes(0, [present[:1], present[1:3]])
    kind.bind(datasets)
    assert kind.table.names == tuple(f"classes.{digit}" for digit in range(10))
    assert kind.background is None
    assert [kind.labels(values) for values in kind.table.values] == [[int(n)] for n in present[:1]] + [
        [int(name) for name in present[1:3]]
    ]
    assert kind.rows(datasets["train"], kind.table.values[0]) is None
    with pytest.raises(PdiffError, match="^condition: got the set of no class"):
        kind.labels(torch.zeros(10))


def test_objects_are_counted_without_those_ignored(counts, datasets):
    infos = [datasets["test"].get_data_info(index) for index in range(len(datasets["test"]))]
    assert counts["test"].sum() == sum(len(info["instances"]) for info in infos)
    assert all(len(count) == 10 for count in counts.values())


def test_a_class_without_objects_in_a_split_is_refused(datasets, absent):
    name, split = absent[0]
    with pytest.raises(PdiffError) as caught:
        Classes(0, [[name]]).bind(datasets)
    assert str(caught.value) == (
        f"collect.conditions.subsets: the class {name!r} of a set has no object of {split}, expected some in each of "
        f"train, select, test. Name sets without it, or give {split} images that have it."
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"subsets": [["11"]]}, "collect.conditions.subsets[0]: got the class '11'. Did you mean '1'?"),
        ({"subsets": [[]]}, "collect.conditions.subsets[0]: got an empty set"),
        ({"subsets": 3, "size": [3, 11]}, "collect.conditions.size: got [3, 11]"),
        ({"subsets": 3, "background": "0"}, "collect.conditions.background: got '0', but detectors have no such"),
    ],
)
def test_sets_that_do_not_fit_the_data_are_refused(datasets, settings, line):
    with pytest.raises(PdiffError) as caught:
        Classes(0, **settings).bind(datasets)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("called", "classes", "label"), [(None, ["a", "Background"], 1), ("void", ["void", "background"], 0)]
)
def test_the_background_is_the_class_of_that_name_or_the_one_that_is_named(called, classes, label):
    assert background_label(classes, called) == label


@pytest.mark.parametrize(
    ("called", "line"),
    [
        (None, r"got null, but the data have no class called background \(sky, road\). Name the class"),
        ("skyy", "got 'skyy'. Did you mean 'sky'\\? Known: road, sky."),
    ],
)
def test_a_background_that_is_not_there_is_refused(called, line):
    with pytest.raises(PdiffError, match=f"^collect.conditions.background: {line}"):
        background_label(["sky", "road"], called)


def test_every_split_of_a_detector_has_the_kind(detector):
    task = conditional(detector, subsets=12, size=[1, 5])
    kind = task.splits["train"].kind
    assert len(kind.table) == len(kind) == 12
    assert task.splits["select"].split.kind is task.splits["test"].split.kind is kind
    assert task.facts["classes"] == list("0123456789")
    assert task.facts["objects"] == "of a condition's classes; all others are background"


def test_every_split_of_a_segmentor_has_the_kind(segmentor):
    task = conditional(segmentor, subsets=12, size=[1, 5])
    kind = task.splits["train"].kind
    assert kind.table.names == tuple(f"classes.{digit}" for digit in range(10))
    assert kind.background == 0
    assert kind.labels(torch.eye(10)[3]) == [4]
    assert task.splits["select"].split.kind is task.splits["test"].split.kind is kind
    assert task.metric.chance == 0


def test_a_run_without_conditions_has_no_kind(segmentor):
    task = segmentor.build(segmentor.values())
    assert task.splits["train"].kind is task.splits["test"].split.kind is None
    assert "classes" not in task.facts
    assert task.metric.chance > 0


def test_a_class_without_pixels_is_refused_where_label_maps_are_read(segmentor):
    values = segmentor.values()
    values["collect"]["conditions"] = {"type": "classes", "subsets": 1023}
    with pytest.raises(PdiffError, match=r"subsets: the class '.' of a set has no pixel in the label maps that"):
        segmentor.build(values)
    values["task"]["check_labels"] = False
    assert len(segmentor.build(values).splits["train"].kind.table) == 1023


def test_another_label_that_is_ignored_is_refused_with_conditions(segmentor):
    values = segmentor.values()
    values["collect"]["conditions"] = {"type": "classes", "subsets": 3}
    values["task"]["model"]["options"]["train_dataloader"]["dataset"]["ignore_index"] = 12
    with pytest.raises(PdiffError, match="^task.data: train ignores the label 12, expected 255 with conditions"):
        segmentor.build(values)


def test_only_the_objects_of_the_classes_stay(splits):
    sample = splits["train"].dataset[0]["data_samples"]
    labels = sample.gt_instances.labels.tolist()
    kept = only(sample, labels[:1], None)
    assert kept.gt_instances.labels.tolist() == [label for label in labels if label == labels[0]]
    assert torch.equal(kept.gt_instances.bboxes.tensor[0], sample.gt_instances.bboxes.tensor[0])
    assert kept.metainfo == sample.metainfo
    assert sample.gt_instances.labels.tolist() == labels, "the sample is as it was"
    assert len(only(sample, [99], None).gt_instances) == 0


def test_objects_that_are_ignored_stay_ignored(splits):
    sample = splits["train"].dataset[0]["data_samples"]
    sample.ignored_instances = InstanceData(bboxes=torch.ones(2, 4), labels=torch.tensor([1, 2]))
    assert len(only(sample, [1], None).ignored_instances) == 2


def test_masks_go_with_their_objects(splits):
    from mmdet.structures.mask import BitmapMasks

    sample = splits["train"].dataset[0]["data_samples"].clone()
    masks = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    sample.gt_instances = InstanceData(labels=torch.tensor([4, 7, 4]), masks=BitmapMasks(masks, 4, 5))
    assert only(sample, [4], None).gt_instances.masks.masks[:, 0, 0].tolist() == [0, 2]


def test_pixels_of_other_classes_become_background(segmentor):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([[[0, 1, 2, 3, 255]]])))
    kept = only(sample, [2], 1)
    assert kept.gt_sem_seg.data.tolist() == [[[1, 1, 2, 1, 255]]]
    assert sample.gt_sem_seg.data.tolist() == [[[0, 1, 2, 3, 255]]], "the sample is as it was"
    assert only(sample, [2], None).gt_sem_seg.data is sample.gt_sem_seg.data


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        ({"subsets": [["0"], ["10"]]}, "collect.conditions.subsets[1]: got the class '10'. Did you mean '1'?"),
        ({"subsets": [["0"], []]}, "collect.conditions.subsets[1]: got an empty set"),
        ({"subsets": 1023}, "collect.conditions.subsets: the class "),
        ({"subsets": [["2"], ["3"], ["4"], ["5"]]}, "fit.split: got 1 groups of conditions that are seen, expected at"),
        ({"subsets": 1024}, "collect.conditions.subsets: got 1024, but of 10 classes there are 1023 sets of 1 to 10."),
    ],
)
def test_conditions_that_do_not_fit_the_data_end_a_run_before_it_trains(case, refused, conditions, line):
    assert line in refused(case, {"collect": {"conditions": {"type": "classes", **conditions}}})


def test_a_plan_counts_the_networks_and_the_wanted_conditions(detector, tmp_path):
    values = detector.values()
    conditions = {"type": "classes", "subsets": [["2"], ["3"], ["4"], ["5"], ["2", "3"], ["2", "4"], ["2", "5"]]}
    values["collect"] = {"conditions": conditions, "networks": {"steps": 1}}
    values["evaluate"], values["fit"] = {}, {"split": {"type": "random", "select": 0.1, "unseen": 0.4}}
    values["generate"] = {"draws": 2}
    plan = make_plan(resolve(values), tmp_path / "run")
    assert (plan.checkpoints, plan.generated, len(plan.notes)) == (7, 2 * 4, 1)


def test_figures_of_the_checkpoints_beside_conditions_end_a_run_before_it_trains(detector, refused):
    sets = [["2"], ["3"], ["4"], ["5"], ["2", "3"], ["2", "4"], ["2", "5"]]
    collection = {"conditions": {"type": "classes", "subsets": sets}, "networks": {"steps": 1}, "finetune": None}
    line = refused(detector, {"collect": collection, "fit": {"conditions": ["loss"], "split": {"unseen": 0.3}}})
    assert line.startswith("error: fit.conditions: got ['loss'], but the checkpoints have conditions of their own (")
