"""The pixels of signatures, and what a split is measured with."""

import numpy as np
import pytest
import torch

from pdiff import PdiffError

pytest.importorskip("mmseg")

IGNORED = 255
CLASSES = ("road", "tree", "sky")


@pytest.fixture(scope="module")
def data(cases):
    """Return the module, which can be imported once mmseg's operators are there."""
    cases("segmentation")
    from pdiff_plugins.segmentation import data

    return data


def image(name: str, size=(20, 30), seed: int = 0, invalid: float = 0.3):
    """Return the truth of an image as mmseg packs it, some of its pixels invalid."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    rng = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (1, *size), generator=rng)
    truth[torch.rand(truth.shape, generator=rng) < invalid] = IGNORED
    return SegDataSample(metainfo={"img_path": f"/data/{name}"}, gt_sem_seg=PixelData(data=truth))


def chosen(pixels, truth) -> set[int]:
    """Return the places that are looked at: those where a map that is wrong in a single place is found wrong."""
    expected = truth.gt_sem_seg.data
    found = set()
    for place in range(expected.numel()):
        labels = expected.clone().flatten()
        labels[place] += 1
        if pixels.wrong(truth, labels.view_as(expected)).any():
            found.add(place)
    return found


def test_as_many_pixels_of_each_image_as_asked_for_in_all(data):
    pixels = data.Pixels(100, 4, 0, IGNORED)
    truths = [image(f"{number}.png", seed=number) for number in range(4)]
    assert [len(pixels.wrong(truth, truth.gt_sem_seg.data)) for truth in truths] == [25] * 4
    assert len(chosen(pixels, truths[0])) == 25


def test_total_that_cannot_be_shared_evenly_is_rounded_up(data):
    pixels = data.Pixels(100, 3, 0, IGNORED)
    truth = image("a.png")
    assert len(pixels.wrong(truth, truth.gt_sem_seg.data)) == 34


def test_image_with_fewer_valid_pixels_gives_all_it_has(data):
    truth = image("a.png", size=(4, 5), invalid=0.5)
    valid = (truth.gt_sem_seg.data.flatten() != IGNORED).nonzero().flatten().tolist()
    assert 0 < len(valid) < 20
    assert chosen(data.Pixels(1000, 1, 0, IGNORED), truth) == set(valid)


def test_image_without_valid_pixel_gives_none(data):
    truth = image("a.png", invalid=2.0)
    found = data.Pixels(1000, 1, 0, IGNORED).wrong(truth, torch.zeros(1, 20, 30, dtype=torch.int64))
    assert (found.shape, found.dtype) == ((0,), torch.bool)


def test_only_valid_pixels_are_looked_at(data):
    pixels, truth = data.Pixels(200, 1, 0, IGNORED), image("a.png")
    expected = truth.gt_sem_seg.data
    assert pixels.wrong(truth, expected.where(expected != IGNORED, 1)).sum() == 0
    assert pixels.wrong(truth, (expected + 1).where(expected != IGNORED, IGNORED)).sum() == 200


def test_another_ignored_label_is_left_out_as_well(data):
    truth = image("a.png", invalid=0)
    valid = (truth.gt_sem_seg.data.flatten() != 2).nonzero().flatten().tolist()
    assert chosen(data.Pixels(1000, 1, 0, 2), truth) == set(valid)


def test_wrong_says_of_each_pixel_whether_its_label_is_another(data):
    truth = image("a.png", size=(6, 6), invalid=0)
    expected = truth.gt_sem_seg.data
    labels = expected.clone()
    labels[0, :3] = (labels[0, :3] + 1) % 3
    wrong = data.Pixels(36, 1, 0, IGNORED).wrong(truth, labels)
    assert (wrong.shape, wrong.dtype, wrong.device.type) == ((36,), torch.bool, "cpu")
    assert wrong.sum() == 18
    assert torch.equal(~wrong, data.Pixels(36, 1, 0, IGNORED).wrong(truth, expected.where(labels != expected, 5)))


def test_labels_of_a_network_with_one_output_are_compared_too(data):
    truth = image("a.png", invalid=0)
    labels = truth.gt_sem_seg.data.float()  # mmseg's labels behind a threshold
    assert not data.Pixels(50, 1, 0, IGNORED).wrong(truth, labels).any()


def test_pixels_are_a_function_of_seed_and_image(data):
    truths = [image(f"{number}.png", invalid=0) for number in range(4)]
    first, again, other = (data.Pixels(100, 4, seed, IGNORED) for seed in (0, 0, 1))
    one = [chosen(first, truth) for truth in truths]
    assert [chosen(again, truth) for truth in reversed(truths)] == one[::-1], "in whatever order the images come"
    assert [chosen(first, truth) for truth in truths] == one, "each time"
    assert all(chosen(other, truth) != places for truth, places in zip(truths, one, strict=True)), "another seed"
    assert len(set(map(frozenset, one))) == 4, "another image"


def test_pixels_do_not_depend_on_the_folder_of_the_data(data):
    here, there = image("a.png"), image("a.png")
    there.set_metainfo({"img_path": "/elsewhere/a.png"})
    assert chosen(data.Pixels(50, 1, 0, IGNORED), here) == chosen(data.Pixels(50, 1, 0, IGNORED), there)


def test_choice_leaves_the_random_state_alone(data):
    state = torch.get_rng_state()
    truth = image("a.png")
    data.Pixels(50, 1, 0, IGNORED).wrong(truth, truth.gt_sem_seg.data)
    assert torch.equal(torch.get_rng_state(), state)


def maps(*labels: int, dtype=np.uint8) -> np.ndarray:
    """Return a label map in which some labels are, and no other."""
    return np.resize(np.array(labels, dtype), (6, 8))


@pytest.fixture
def measure(write, data, dataset, tmp_path):
    """Return a function from the evaluator's settings to the measured split."""
    from mmengine.config import Config
    from pdiff_plugins.openmmlab.data import Split

    write(tmp_path, maps(0, 1, 2))

    def measured(evaluator, pixels: int = 100, **settings):
        config = Config({"test_evaluator": evaluator})
        return data.measure(config, "test", Split(dataset(**settings), {}), pixels, 0)

    return measured


def test_split_is_measured_by_its_classes_and_its_share_of_pixels(write, measure, tmp_path):
    write(tmp_path, maps(0), "b.png")
    measured = measure({"type": "IoUMetric"}, 101)
    assert measured.metric.dataset_meta == {"classes": CLASSES}
    assert measured.pixels.share == 51


@pytest.mark.parametrize("name", ["IoUMetric", "mmseg.IoUMetric"])
@pytest.mark.parametrize("ignored", [{}, {"ignore_index": 255}, {"ignore_index": 11}])
def test_ignored_label_is_that_of_the_evaluator(measure, name, ignored):
    measured = measure([{"type": "Other"}, {"type": name, **ignored}], **ignored)
    expected = ignored.get("ignore_index", 255)
    assert (measured.metric.ignore_index, measured.pixels.ignored) == (expected, expected)


@pytest.mark.parametrize(("theirs", "own"), [({}, {"ignore_index": 11}), ({"ignore_index": 11}, {})])
def test_evaluator_that_ignores_another_label_than_the_data_set_is_refused(measure, theirs, own):
    of_data, of_metric = theirs.get("ignore_index", 255), own.get("ignore_index", 255)
    with pytest.raises(PdiffError) as caught:
        measure({"type": "IoUMetric", **own}, **theirs)
    assert str(caught.value) == (
        f"task.model.config: the data set of test ignores the label {of_data}, but its IoUMetric the label "
        f"{of_metric}. Give both the same ignore_index."
    )


@pytest.mark.parametrize("pixels", [0, -1, 1.5, True, "many"])
def test_number_of_pixels_is_positive(measure, pixels):
    with pytest.raises(PdiffError, match="task.signature_pixels: got .*, expected an integer from 1 on"):
        measure({"type": "IoUMetric"}, pixels)


def test_config_without_the_metric_is_refused(measure):
    with pytest.raises(PdiffError, match="task.model.config: its test_evaluator has no IoUMetric"):
        measure([{"type": "CityscapesMetric"}])
