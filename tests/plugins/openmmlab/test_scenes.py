"""Scenes of digits: pixels fixed for all time, boxes around their digits, and a cache that is whole or absent."""

import hashlib
import json
import resource
import shutil
import threading
import time

import numpy as np
import pytest
from pdiff_plugins.openmmlab.scenes import (
    CLASSES,
    compose_scene,
    compose_scenes,
    cubic_weights,
    digit_groups,
    enlarge,
    ink,
    run_lengths,
)
from PIL import Image
from sklearn.datasets import load_digits

from pdiff.runtime.errors import PdiffError

SPLITS = {"train": 6, "select": 3, "test": 3}
SIZE = 64
DIGITS = load_digits()


def compose(cache, **settings):
    """Return the folder of a small data set."""
    return compose_scenes(**({**SPLITS, "size": SIZE} | settings), cache=str(cache))


def contents(folder) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path) -> np.ndarray:
    """Return the pixels of an image file."""
    with Image.open(path) as image:
        return np.array(image)


def sha256(*arrays: np.ndarray) -> str:
    """Return the first 16 digits of the checksum of arrays."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a data set that no test changes."""
    return compose(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copy(whole, tmp_path):
    """Return a copy of it in another cache."""
    return shutil.copytree(whole, tmp_path / whole.name)


@pytest.mark.parametrize(("cells", "pixels"), [(10, 7), (10, 16), (10, 60), (3, 12), (12, 128)])
def test_weights_of_each_pixel_sum_to_one(cells, pixels):
    assert (cubic_weights(cells, pixels).sum(1) == 1 << 19).all()


def test_a_slope_is_enlarged_to_the_same_slope():
    slope = np.stack(np.broadcast_arrays(640 * np.arange(10)[:, None], 640 * np.arange(10)), -1)
    large = enlarge(slope, 40, 80)
    inner = large[8:-8, 16:-16]  # where no border is near
    expected = [(np.arange(8, 32) * 160 - 240)[:, None], np.arange(16, 64) * 80 - 280]
    assert all(abs(inner[..., axis] - expected[axis]).max() <= 10 for axis in (0, 1))  # the position: 1/64 cell


@pytest.mark.parametrize(("height", "width"), [(6, 4), (12, 9), (25, 20), (48, 57)])
def test_every_digit_leaves_ink_at_every_size(height, width):
    for digit in DIGITS.images:
        opacity = ink(digit, height, width)
        assert opacity.min() >= 0
        assert 96 <= opacity.max() <= 256
        assert all(edge.any() for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]))


def test_pixels_of_a_scene_are_fixed_for_all_time():
    rng = np.random.default_rng(0)
    image, label_map, boxes, classes = compose_scene(DIGITS.images[:4], DIGITS.target[:4], rng, SIZE)
    assert (image.dtype, image.shape) == (np.uint8, (SIZE, SIZE, 3))
    assert (label_map.dtype, label_map.shape) == (np.uint8, (SIZE, SIZE))
    assert (boxes.dtype, boxes.shape, classes.tolist()) == (np.int64, (4, 4), [0, 1, 2, 3])
    assert sha256(image, label_map, boxes) == "53e8a1dc62d2cdd5"


def test_pixels_of_a_data_set_are_fixed_for_all_time(whole):
    images = [pixels(whole / split / f"{index:06d}.png") for split in SPLITS for index in range(3)]
    assert sha256(*images) == "5dfa22d3230e5e9d"


def test_boxes_are_tight_and_do_not_overlap():
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.integers(0, 1797, 5)
        _, label_map, boxes, classes = compose_scene(DIGITS.images[rows], DIGITS.target[rows], rng, SIZE)
        rest = label_map.copy()
        for (x, y, w, h), label in zip(boxes, classes, strict=True):
            inside = label_map[y : y + h, x : x + w]
            assert set(np.unique(inside)) == {0, label + 1}
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            assert rest[y : y + h, x : x + w].any()
            rest[y : y + h, x : x + w] = 0
        assert not rest.any()


def test_digits_that_find_no_place_are_left_out_with_those_after_them():
    count = 200
    rng = np.random.default_rng(0)
    _, _, boxes, classes = compose_scene(DIGITS.images[:count], DIGITS.target[:count], rng, 32)
    assert 3 <= len(boxes) < count
    assert classes.tolist() == DIGITS.target[: len(boxes)].tolist()


def test_a_scene_without_digits_has_no_boxes():
    rng = np.random.default_rng(0)
    _, label_map, boxes, classes = compose_scene(DIGITS.images[:0], DIGITS.target[:0], rng, SIZE)
    assert (label_map.any(), boxes.shape, classes.shape) == (False, (0, 4), (0,))


def test_the_same_settings_give_the_same_bytes(whole, tmp_path):
    again = compose(tmp_path)
    assert again.name == whole.name
    assert contents(again) == contents(whole)


def test_another_seed_gives_other_scenes_in_another_folder(whole, tmp_path):
    other = compose(tmp_path, seed=1)
    assert other.name != whole.name
    for split in SPLITS:
        assert (other / split / "000000.png").read_bytes() != (whole / split / "000000.png").read_bytes()


def test_a_scene_does_not_depend_on_the_number_of_scenes(whole, tmp_path):
    fewer = compose(tmp_path, train=2, select=1, test=1)
    assert fewer.name != whole.name
    for name in ("train/000001.png", "train_labels/000001.png", "select/000000.png", "test/000000.png"):
        assert (fewer / name).read_bytes() == (whole / name).read_bytes()


def test_the_folder_has_the_stated_files(whole):
    images = {f"{split}{kind}/{i:06d}.png" for split, n in SPLITS.items() for kind in ("", "_labels") for i in range(n)}
    lists = {"settings.json", "checksums.json", *(f"{split}.json" for split in SPLITS)}
    assert set(contents(whole)) == images | lists
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]
    settings = {**SPLITS, "size": SIZE, "digits": [2, 5], "seed": 0, "format": 2}
    assert json.loads((whole / "settings.json").read_text()) == settings


def test_splits_share_no_image_of_a_digit(whole):
    groups = digit_groups(0)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(1797))
    for split, group in groups.items():
        annotations = json.loads((whole / f"{split}.json").read_text())["annotations"]
        assert {annotation["digit"] for annotation in annotations} <= set(group.tolist())
        for annotation in annotations:
            assert annotation["category_id"] == DIGITS.target[annotation["digit"]] + 1
    assert len({tuple(image) for image in DIGITS.images.reshape(1797, 64)}) == 1797


@pytest.mark.parametrize("split", SPLITS)
def test_coco_lists_fit_the_images_and_the_label_maps(whole, split, capsys):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(whole / f"{split}.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.getCatIds() == list(range(1, 11))
    assert len(coco.getImgIds()) == SPLITS[split]
    for entry in coco.loadImgs(coco.getImgIds()):
        image = pixels(whole / split / entry["file_name"])
        label_map = pixels(whole / f"{split}_labels" / entry["file_name"])
        assert image.shape == (entry["height"], entry["width"], 3) == (SIZE, SIZE, 3)
        assert (label_map.shape, label_map.dtype) == ((SIZE, SIZE), np.uint8)
        annotations = coco.loadAnns(coco.getAnnIds(entry["id"]))
        assert 2 <= len(annotations) <= 5
        for annotation in annotations:
            x, y, w, h = annotation["bbox"]
            inside = label_map[y : y + h, x : x + w]
            assert annotation["area"] == (inside == annotation["category_id"]).sum() > 0
            assert annotation["iscrowd"] == 0
            mask = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(mask[y : y + h, x : x + w], inside > 0)
            assert mask.sum() == annotation["area"]
        assert sum(annotation["area"] for annotation in annotations) == (label_map > 0).sum()


@pytest.mark.parametrize(("mask", "runs"), [("0110", [1, 2, 1]), ("1000", [0, 1, 3]), ("0000", [4]), ("1111", [0, 4])])
def test_run_lengths_go_down_the_columns_and_begin_outside(mask, runs):
    assert run_lengths(np.array([pixel == "1" for pixel in mask]).reshape(2, 2)) == runs


def test_the_number_of_digits_is_a_setting(tmp_path):
    annotations = json.loads((compose(tmp_path, digits=[1, 1]) / "train.json").read_text())["annotations"]
    assert [annotation["image_id"] for annotation in annotations] == [1, 2, 3, 4, 5, 6]


def test_a_second_call_writes_nothing(copy):
    paths = [copy, copy.parent, *copy.rglob("*")]
    before = [path.stat().st_mtime_ns for path in paths]
    assert compose(copy.parent) == copy
    assert [path.stat().st_mtime_ns for path in paths] == before


@pytest.mark.parametrize("name", ["train/000002.png", "test_labels/000000.png", "select.json", "settings.json"])
def test_a_damaged_file_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(PdiffError) as caught:
        compose(copy.parent)
    problem = "is damaged, its checksum is not the one that was written"
    assert str(caught.value) == f"{copy / name}: {problem}. Delete the folder {copy} to compose it again."


@pytest.mark.parametrize("name", ["train/000002.png", "test_labels/000000.png", "select.json", "checksums.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(PdiffError) as caught:
        compose(copy.parent)
    problem = "cannot be read (No such file or directory)"
    assert str(caught.value) == f"{copy / name}: {problem}. Delete the folder {copy} to compose it again."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", r"is damaged \(.*\)"),
        (b"\xff{}", r"is damaged \(.*\)"),
        (b"3", r"is damaged \(.*\)"),
        (b"{}", "names 0 files, expected 28"),
    ],
)
def test_a_damaged_list_of_checksums_is_named(copy, content, problem):
    (copy / "checksums.json").write_bytes(content)
    with pytest.raises(PdiffError, match=rf"^\S+checksums\.json: {problem}\. Delete the folder \S+ to compose .*\.$"):
        compose(copy.parent)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train": 0}, "train: got 0, expected an integer from 1 on."),
        ({"select": -1}, "select: got -1, expected an integer from 1 on."),
        ({"test": 1.5}, "test: got 1.5, expected an integer from 1 on."),
        ({"size": True}, "size: got True, expected an integer from 1 on."),
        ({"size": 31}, "size: got 31, expected an integer from 32 on."),
        ({"size": "64"}, "size: got '64', expected an integer from 1 on."),
        ({"seed": "x"}, "seed: got 'x', expected an integer."),
    ],
)
def test_invalid_settings_are_refused(tmp_path, settings, line):
    with pytest.raises(PdiffError) as caught:
        compose(tmp_path, **settings)
    assert str(caught.value) == f"task.data.scenes.{line}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("digits", [3, [3], [0, 2], [4, 2], [2, 9], [2, 2.5], [True, 2], "25", None])
def test_invalid_numbers_of_digits_are_refused(tmp_path, digits):
    with pytest.raises(PdiffError) as caught:
        compose(tmp_path, digits=digits)
    rule = "expected the fewest and the most digits of a scene, two integers from 1 to 8 in order."
    assert str(caught.value) == f"task.data.scenes.digits: got {digits!r}, {rule}"


@pytest.mark.parametrize("cache", ["", 3, False])
def test_a_cache_that_is_no_folder_name_is_refused(cache):
    with pytest.raises(PdiffError) as caught:
        compose_scenes(**SPLITS, cache=cache)
    assert str(caught.value) == f"task.data.scenes.cache: got {cache!r}, expected a folder."


def test_the_cache_is_in_the_users_cache_folder_unless_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    counts = {"train": 1, "select": 1, "test": 1, "size": 32}
    assert compose_scenes(**counts).parent == tmp_path / "home" / ".cache" / "pdiff"
    assert compose_scenes(**counts, cache="~/mine").parent == tmp_path / "home" / "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compose_scenes(**counts).parent == tmp_path / "xdg" / "pdiff"


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PdiffError) as caught:
        compose(tmp_path / "file")
    line = "cannot be written (Not a directory). Make room or give another folder as task.data.scenes.cache."
    assert str(caught.value) == f"{tmp_path / 'file'}: {line}"


def test_a_write_that_fails_midway_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # bytes: settings.json fits, an image does not
    try:
        with pytest.raises(PdiffError, match=r"^\S+: cannot be written \(File too large\)\. .*scenes\.cache\.$"):
            compose(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_killed_leaves_no_folder_that_is_taken_for_whole(tmp_path, whole, processes):
    cache = tmp_path / "cache"
    (process,) = processes(lambda _: compose_scenes(10**5, cache=str(cache)), 1).all
    while not list(cache.glob("*.part/train/000002.png")):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    (left,) = cache.iterdir()
    assert left.suffix == ".part"
    left.rename(cache / f"{whole.name}.{'0' * 32}.part")
    assert contents(compose(cache)) == contents(whole)


def test_of_two_that_compose_at_once_both_get_the_folder(tmp_path, whole):
    start, folders = threading.Barrier(2), []

    def call():
        start.wait()
        folders.append(compose(tmp_path))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / whole.name] * 2
    assert list(tmp_path.iterdir()) == folders[:1]
    assert contents(folders[0]) == contents(whole)
