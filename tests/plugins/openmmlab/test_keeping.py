"""Decoded files kept in memory: the same samples, each file decoded once, within the budget."""

import mmcv
import numpy as np
import pytest
import torch
from pdiff_plugins.openmmlab.keeping import KeptImage, KeptLabels, Memory, keep_decoded

from pdiff import PdiffError, Task

CONDITIONS = {"type": "classes", "subsets": [["0"]]}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """List from now on, until the test ends, the size of each file that mmcv decodes."""
    sizes, decode = [], mmcv.imfrombytes

    def watched(content: bytes, **settings) -> np.ndarray:
        sizes.append(len(content))
        return decode(content, **settings)

    monkeypatch.setattr(mmcv, "imfrombytes", watched)
    return sizes


def build(case, memory: int | None, conditions: dict | None = None) -> Task:
    """Return the task of a tiny config, and so many MiB."""
    values = case.values()
    values["task"]["data"]["memory"] = memory
    values["task"]["data"]["scenes"] |= {"train": 24, "select": 24, "test": 24}
    if conditions is not None:
        values["collect"]["conditions"] = conditions
    return case.build(values)


def steps(task: Task, split: str = "train") -> list:
    """Return the steps of the pipeline of a split."""
    data = task.splits[split]
    return (data if split == "train" else data.split).dataset.pipeline.transforms


def samples(task: Task, split: str, rounds: int) -> list[torch.Tensor]:
    """Return what the first images become, with their label maps, again and again under other random numbers."""
    data = task.splits[split]
    dataset, found = (data if split == "train" else data.split).dataset, []
    for number in range(rounds):
        for index in range(4):
            torch.manual_seed(number)
            np.random.seed(number)
            sample = dataset[index]
            truth = sample["data_samples"]
            found += [sample["inputs"], truth.gt_sem_seg.data if "gt_sem_seg" in truth else torch.tensor(truth.img_id)]
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_the_same_bit_for_bit(case, split):
    plain, kept = (samples(build(case, memory), split, 3) for memory in (0, 64))
    assert all(torch.equal(*pair) for pair in zip(plain, kept, strict=True))
    assert len(plain) == 24


def test_each_file_is_decoded_once(case, decoded):
    task = build(case, 64)
    samples(task, "train", 1)
    before = len(decoded)
    samples(task, "train", 3)
    assert len(decoded) == before > 0


def test_what_finds_no_room_is_decoded_again(segmentor, decoded):
    dataset = build(segmentor, 0).splits["train"].dataset
    image, labels = dataset.pipeline.transforms[:2]
    room = Memory(64 * 64 * 3 + 64 * 64)
    dataset.pipeline.transforms[:2] = [KeptImage(image, room), KeptLabels(labels, room)]
    dataset[0], dataset[1]
    before = len(decoded)
    dataset[0], dataset[1]
    assert len(decoded) - before == 2, "image and label map of the second"
    assert room.left == 0


def test_what_a_step_writes_into_an_image_is_not_kept():
    memory = Memory(100)
    first = np.zeros(4, np.uint8)
    memory.put(("a",), first)
    first += 1
    memory.take(("a",))[:] = 7
    assert memory.take(("a",)).tolist() == [0, 0, 0, 0]


def test_only_runs_with_conditions_keep_images_unless_told(segmentor):
    names = [type(step).__name__ for step in steps(build(segmentor, None))]
    assert names[:2] == ["LoadImageFromFile", "LoadAnnotations"]
    kept = [type(step).__name__ for step in steps(build(segmentor, None, CONDITIONS), "test")]
    assert kept[:2] == ["KeptImage", "KeptLabels"]
    assert [type(step).__name__ for step in steps(build(segmentor, 0, CONDITIONS))] == names


def test_all_splits_share_the_budget(detector):
    task = build(detector, 64)
    assert steps(task)[0].memory is steps(task, "test")[0].memory is steps(task, "select")[0].memory


@pytest.mark.parametrize(
    ("memory", "line"), [(-1, "got -1, expected MiB, 0 to keep no image."), ("2G", "got '2G', expected an integer.")]
)
def test_a_budget_that_is_none_is_refused(segmentor, memory, line):
    with pytest.raises(PdiffError, match=f"^task.data.memory: {line}"):
        build(segmentor, memory)


def test_nothing_is_changed_where_nothing_is_kept(splits):
    before = list(splits["train"].dataset.pipeline.transforms)
    keep_decoded([splits["train"].dataset], None, conditional=False)
    assert splits["train"].dataset.pipeline.transforms == before
