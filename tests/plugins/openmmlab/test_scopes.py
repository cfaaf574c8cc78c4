"""Tasks of configs with conditions: what counts for each candidate, and what an exported network is narrowed to."""

import pytest
import torch

from pdiff import PdiffError

SETS = [["0"], ["1", "7"], ["0", "1", "7"]]


@pytest.fixture(scope="module")
def built():
    """What was built, by plugin."""
    return {}


@pytest.fixture
def conditional(case, wanting, built):
    """Return a task of sets of classes and three candidates, one for each set, of each plugin in turn."""
    if case.plugin not in built:
        values = case.values()
        values["task"]["data"]["scenes"] |= {"train": 24, "select": 24, "test": 24}
        values["collect"]["conditions"] = {"type": "classes", "subsets": SETS}
        built[case.plugin] = case.build(values)
    task = built[case.plugin]
    table = task.splits["train"].kind.table
    return task, wanting(case.candidates(task=task, count=3), table.names, table.values.tolist())


def test_candidates_for_sets_of_classes_are_measured_on_the_same_units(case, conditional):
    task, candidates = conditional
    found = case.evaluate(candidates, task=task)
    assert len({evaluation.signature.shape for evaluation in found}) == 1
    assert {evaluation.scores.shape for evaluation in found} == {(20,) if case.plugin == "detection" else (24,)}
    assert [set(e.condition) <= set(candidates.conditions.names) for e in found] == [True] * 3
    measure = "AP/" if case.plugin == "detection" else "IoU/"
    for evaluation, names in zip(found, SETS, strict=True):
        assert {name for name in evaluation.details if "/" in name} == {f"{measure}{name}" for name in names}


def test_set_of_no_class_is_refused(case, conditional, wanting):
    task, candidates = conditional
    none = wanting(candidates, candidates.conditions.names, [[0] * 10] * 3)
    with pytest.raises(PdiffError, match="condition: got the set of no class"):
        case.evaluate(none, task=task)


def test_task_of_sets_of_classes_narrows_the_last_layer_of_its_network(case, conditional):
    task, candidates = conditional
    candidates.load(task.model, 0)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    task.for_condition(task.model, candidates.conditions[1])
    changed = {name for name, tensor in task.model.state_dict().items() if not torch.equal(tensor, before[name])}
    bias = "bbox_head.conv_cls.bias" if case.plugin == "detection" else "decode_head.conv_seg.bias"
    assert changed == {bias}
    kept = [1, 7] if case.plugin == "detection" else [0, 2, 8]
    assert (task.model.state_dict()[bias] > -100).nonzero().flatten().tolist() == kept


def test_task_without_conditions_narrows_nothing(case):
    assert case.task.for_condition is None


@pytest.mark.parametrize("plugin", ["detection", "segmentation"])
def test_candidates_for_images_of_a_column_are_measured_on_these(cases, wanting, tmp_path, plugin):
    case = cases(plugin)
    values = case.values()
    counts = values["task"]["data"]["scenes"]
    rows = [f"{name}/{row:06d}.png,{row % 2}" for name in ("train", "select", "test") for row in range(counts[name])]
    (tmp_path / "images.csv").write_text("\n".join(["image,angle", *rows]))
    values["collect"]["conditions"] = {"type": "columns", "file": str(tmp_path / "images.csv"), "columns": "angle"}
    task = case.build(values)
    candidates = wanting(case.candidates(task=task, count=3), ["angle"], [[1], [0], [1]])
    found = case.evaluate(candidates, task=task)
    alone = [case.evaluate(candidates.take([number]), task=task)[0] for number in range(3)]
    case.assert_same(found, alone)
    assert [(each.scores, each.condition) for each in found] == [(None, None)] * 3
    assert len({each.signature.shape for each in found}) == 1
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    task.for_condition(task.model, {"angle": 1.0})
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())
