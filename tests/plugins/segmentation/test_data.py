"""The pixels of signatures, what a split is measured with, and label maps that are sound or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


def write(folder: Path, labels: np.ndarray, name: str = "a.png", size=(6, 8)) -> None:
    """Write an image and its label map."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / "images" / name)
    Image.fromarray(labels).save(folder / "labels" / name)


def maps(*labels: int, dtype=np.uint8) -> np.ndarray:
    """Return a label map in which some labels are, and no other."""
    return np.resize(np.array(labels, dtype), (6, 8))


@pytest.fixture
def dataset(segmentor, tmp_path):
    """Return a function from settings to a data set of mmseg, of what was written, its classes the three."""
    from mmseg.datasets import ADE20KDataset, BaseSegDataset

    def build(classes=CLASSES, ade20k: bool = False, **settings):
        own = {"data_root": str(tmp_path), "data_prefix": {"img_path": "images", "seg_map_path": "labels"}}
        own |= {"img_suffix": ".png", "metainfo": {"classes": classes}, "serialize_data": False}
        own |= {"pipeline": [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]}
        with segmentor.library.scope():
            return (ADE20KDataset if ade20k else BaseSegDataset)(**{**own, **settings})

    return build


@pytest.fixture
def check(data, dataset):
    """Return a function that checks the label maps of a data set and returns the line that refuses them, or None."""
    from pdiff_plugins.openmmlab.data import Split

    def line(made=None, **settings) -> str | None:
        try:
            data.check_splits({"test": Split(made or dataset(**settings), {})})
        except PdiffError as error:
            return str(error)
        return None

    return line


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (maps(0, 1, 2), {}),
        (maps(0, 1, 2, 255), {}),
        (maps(0, 1, 2, 11), {"ignore_index": 11}),
        (maps(0, 1, 2, 3, 255), {"reduce_zero_label": True}),
        (maps(0, 1, 2, 255, dtype=np.uint16), {}),
        (maps(0, 1, 2, 149, 255), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": False}),
        (maps(0, 1, 2, 149, 255), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": True}),
    ],
    ids=["classes", "ignored", "other ignored", "reduced", "wide", "some classes", "some, reduced"],
)
def test_sound_label_map_passes(check, tmp_path, labels, settings):
    write(tmp_path, labels)
    assert check(**settings) is None


def test_last_class_of_a_data_set_that_is_reduced_and_from_which_classes_are_left_out_passes(check, tmp_path):
    write(tmp_path, maps(0, 1, 2, 150, 255))  # as ADE20K has it: 0 for none, 150 for the last
    assert check(ade20k=True, classes=["sky", "wall"], reduce_zero_label=True) is None


def test_image_whose_every_pixel_is_ignored_passes_beside_another(check, tmp_path):
    write(tmp_path, maps(255))
    write(tmp_path, maps(0), "b.png")
    assert check() is None


def test_split_without_a_pixel_that_counts_is_refused(check, tmp_path):
    write(tmp_path, maps(255))
    assert check().startswith("task.data: every pixel of test is ignored.")


def test_label_map_with_a_palette_passes(check, tmp_path):
    write(tmp_path, maps(0, 1, 2))
    coloured = Image.frombytes("P", (8, 6), maps(0, 1, 2).tobytes())
    coloured.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    coloured.save(tmp_path / "labels" / "a.png")
    assert check() is None


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (maps(0, 1, 3), {}, "has the label 3, expected 0 to 2 or 255, which is ignored. Mend it, or set classes"),
        (maps(0, 1, 255, 254), {}, "has the label 254, expected 0 to 2 or 255"),
        (maps(0, 256, dtype=np.uint16), {}, "has the label 256, expected 0 to 2"),  # mmseg would read a 0
        (maps(0, 7), {"ignore_index": 11}, "has the label 7, expected 0 to 2 or 11"),
        (maps(0, 1, 4), {"reduce_zero_label": True}, "has the label "),
        (maps(0, 151), {"ade20k": True, "classes": ["sky", "wall"], "reduce_zero_label": False}, "has the label 151"),
        (np.zeros((8, 6), np.uint8), {}, "has the size (8, 6), expected (6, 8), that of its image"),
        (np.zeros((6, 8, 3), np.uint8), {}, "has the size (6, 8, 3), expected (6, 8), that of its image"),
    ],
    ids=["one too many", "beside ignored", "wide", "other ignored", "reduced", "some classes", "turned", "colours"],
)
def test_unsound_label_map_is_refused(check, tmp_path, labels, settings, words):
    write(tmp_path, maps(0))
    write(tmp_path, labels, "b.png")
    assert check(**settings).startswith(f"task.data: {tmp_path}/labels/b.png {words}")


def test_label_that_is_named_is_the_one_in_the_file(check, tmp_path):
    write(tmp_path, maps(1, 2, 4))
    assert f"{tmp_path}/labels/a.png has the label 4" in check(reduce_zero_label=True)


def test_label_255_is_refused_when_another_one_is_ignored(check, tmp_path):
    write(tmp_path, maps(0, 11, 255))
    assert "a.png has the label 255, expected 0 to 2 or 11" in (check(ignore_index=11) or "")


def test_image_without_label_map_is_refused_with_the_path_of_the_missing_one(check, tmp_path):
    write(tmp_path, maps(0))
    (tmp_path / "labels" / "a.png").rename(tmp_path / "labels" / "a_labels.png")
    paths = f"{tmp_path}/images/a.png has no label map, expected {tmp_path}/labels/a.png"
    assert check() == f"task.data: the image {paths}. Check data_prefix and seg_map_suffix."
    assert check(seg_map_suffix="_labels.png") is None


def test_data_set_without_a_folder_of_label_maps_is_refused(check, tmp_path):
    write(tmp_path, maps(0))
    assert "data_prefix" in check(data_prefix={"img_path": "images"})


@pytest.mark.parametrize(("kind", "left"), [("images", 0), ("labels", 0), ("labels", 45)])
def test_damaged_file_is_refused_by_its_name(check, tmp_path, kind, left):
    write(tmp_path, maps(0, 1, 2))
    path = tmp_path / kind / "a.png"
    path.write_bytes(path.read_bytes()[:left])
    assert check().startswith(f"task.data: {path} cannot be read (")


def test_label_map_of_a_photograph_that_was_held_upright_has_the_size_that_the_network_sees(check, dataset, tmp_path):
    write(tmp_path, np.zeros((8, 6), np.uint8), "a.jpg")
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "labels" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / "a.jpg", exif=exif)
    seen = dataset(img_suffix=".jpg", pipeline=[{"type": "LoadImageFromFile"}])
    assert seen[0]["ori_shape"] == (8, 6)
    assert check(seen) is None


@pytest.mark.parametrize(("label", "passes"), [(2, True), (3, False)])
def test_data_sets_in_a_wrapper_are_checked_each(check, dataset, tmp_path, label, passes):
    from mmengine.dataset import ConcatDataset, RepeatDataset

    write(tmp_path, maps(0, label))
    for made in (ConcatDataset([dataset(), dataset()]), RepeatDataset(dataset(), 2)):
        assert (check(made) is None) == passes


def test_every_split_is_read(data, dataset, tmp_path):
    from pdiff_plugins.openmmlab.data import Split

    for name, labels in {"one": maps(0), "two": maps(1), "three": maps(5)}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, labels)
    splits = {name: Split(dataset(data_root=str(tmp_path / name)), {}) for name in ("one", "two", "three")}
    with pytest.raises(PdiffError, match="three/labels/a.png has the label 5"):
        data.check_splits(splits)


@pytest.fixture
def measure(data, dataset, tmp_path):
    """Return a function from the evaluator's settings to the measured split."""
    from mmengine.config import Config
    from pdiff_plugins.openmmlab.data import Split

    write(tmp_path, maps(0, 1, 2))

    def measured(evaluator, pixels: int = 100, **settings):
        config = Config({"test_evaluator": evaluator})
        return data.measure(config, "test", Split(dataset(**settings), {}), pixels, 0)

    return measured


def test_split_is_measured_by_its_classes_and_its_share_of_pixels(measure, tmp_path):
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


def test_chance_is_the_miou_of_calling_everything_the_most_frequent_class(data):
    assert data.chance(np.array([90, 6, 4, 0])) == pytest.approx(0.9 / 3)
    assert data.chance(np.array([7, 0])) == 1
