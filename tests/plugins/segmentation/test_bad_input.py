"""What a user can get wrong about a segmentor and its data: one line that says what to do, before any training."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

MODEL = "task.model.options.model"
SPLITS = ("train", "select", "test")
LOADERS = dict(zip(SPLITS, ("train_dataloader", "val_dataloader", "test_dataloader"), strict=True))
SCENES = {"train": 8, "select": 4, "test": 4, "size": 64}
LOAD, LABELS, PACK = ({"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))


@pytest.fixture
def refused(refused, segmentor):
    """Return a function from other values of the tiny config to the line that a run ends with."""
    return partial(refused, segmentor)


@pytest.fixture
def own_data(tmp_path, segmentor):
    """Return the folder of scenes of our own, to be damaged, and the settings that name it."""
    from pdiff_plugins.openmmlab.scenes import compose_scenes

    root = Path(shutil.copytree(compose_scenes(**SCENES), tmp_path / "scenes"))
    return root, {"task.data": {"root": str(root)}}


@pytest.mark.parametrize("split", SPLITS)
def test_label_that_is_none_of_the_classes(refused, own_data, split):
    root, settings = own_data
    path = root / f"{split}_labels" / "000002.png"
    labels = np.array(Image.open(path))
    labels[3, 5] = 11
    Image.fromarray(labels).save(path)
    assert refused(settings) == (
        f"error: task.data: {path} has the label 11, expected 0 to 10 or 255, which is ignored. "
        "Mend it, or set classes, ignore_index and reduce_zero_label in task.model.config."
    )


@pytest.mark.parametrize("split", SPLITS)
def test_images_without_label_files(refused, own_data, split):
    root, settings = own_data
    (root / f"{split}_labels").rename(root / "elsewhere")
    name = "000000.png"
    paths = f"the image {root / split / name} has no label map, expected {root / f'{split}_labels' / name}."
    assert refused(settings) == f"error: task.data: {paths} Check data_prefix and seg_map_suffix."


def test_image_without_label_file_among_others(refused, own_data):
    root, settings = own_data
    (root / "test_labels" / "000003.png").unlink()
    assert f"the image {root}/test/000003.png has no label map" in refused(settings)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((64, 32), "has the size (64, 32), expected (64, 64), that of its image. Mend it."),
        (
            (64, 64, 3),
            "has 3 channels (red, green and blue), expected one label for each pixel. Write the number of the",
        ),
    ],
)
def test_label_map_of_another_size_than_its_image(refused, own_data, shape, words):
    root, settings = own_data
    path = root / "select_labels" / "000001.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    assert refused(settings).startswith(f"error: task.data: {path} {words}")


def test_masks_in_black_and_white_whose_white_is_ignored(refused, own_data):
    root, settings = own_data
    for path in root.glob("*_labels/*.png"):
        Image.fromarray(np.where(np.array(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    line = refused(settings)
    assert line.startswith(
        "error: task.data: every pixel of train that counts is of the class 'background'; the others"
    )
    assert "In masks of 0 and 255, write 1 for 255" in line


@pytest.mark.parametrize("classes", [10, 19])
def test_head_of_another_number_of_classes_than_the_data(refused, classes):
    line = refused({f"{MODEL}.decode_head.num_classes": classes, f"{MODEL}.decode_head.loss_decode": {}})
    assert line.startswith(f"error: task.model.config: the decode_head has {classes} classes, the data set 11.")


def test_head_that_ignores_another_label_than_the_data(refused):
    line = refused({f"{MODEL}.decode_head.ignore_index": 0})
    assert "the decode_head ignores the label 0, but the data set the label 255" in line


@pytest.mark.parametrize("place", ["data", "metric"])
def test_metric_that_ignores_another_label_than_the_data(refused, place):
    where = "test_dataloader.dataset" if place == "data" else "test_evaluator"
    labels = {"data": "11, but its IoUMetric the label 255", "metric": "255, but its IoUMetric the label 11"}
    line = refused({f"task.model.options.{where}": {"ignore_index": 11}})
    split = "test" if place == "data" else "select"
    assert line == (
        f"error: task.model.config: the data set of {split} ignores the label {labels[place]}. "
        "Give both the same ignore_index."
    )


def test_split_without_a_pixel_that_counts(refused, own_data):
    root, settings = own_data
    for path in (root / "test_labels").glob("*.png"):
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    assert refused(settings).startswith("error: task.data: every pixel of test is ignored (255).")


@pytest.mark.parametrize(("pixels", "rule"), [(0, " from 1 on"), (-5, " from 1 on"), (2.5, ""), ("many", "")])
def test_number_of_pixels_of_a_signature(refused, pixels, rule):
    line = f"error: task.signature_pixels: got {pixels!r}, expected an integer{rule}."
    assert refused({"task.signature_pixels": pixels}) == line


def test_checkpoint_of_another_network(refused, segmentor):
    base = segmentor.run.base
    line = refused({f"{MODEL}.decode_head.channels": 6, "task.model.checkpoint": str(base)})
    assert line == (
        f"error: {base}: 'decode_head.conv_seg.weight' has the shape (11, 4, 1, 1), expected (11, 6, 1, 1) as the "
        "network has it. Give a file of this network, or the network of the file."
    )


@pytest.mark.parametrize("split", ["select", "test"])
def test_pipeline_without_label_maps(refused, split):
    line = refused({f"task.model.options.{LOADERS[split]}.dataset.pipeline": [LOAD, PACK]})
    assert f"the pipeline of {split} loads no label map" in line


def test_pipeline_that_resizes_the_label_maps(refused):
    pipeline = [LOAD, LABELS, {"type": "Resize", "scale": 32}, PACK]
    line = refused({"task.model.options.test_dataloader.dataset.pipeline": pipeline})
    assert "the pipeline of test changes the size of the label maps" in line


@pytest.mark.parametrize("split", ["select", "test"])
def test_pipeline_that_fails(refused, split):
    pipeline = [LOAD, {"type": "Resize", "scale": [32, 32], "keep_ratio": True}, LABELS, PACK]  # mmcv wants a tuple
    line = refused({f"task.model.options.{LOADERS[split]}.dataset.pipeline": pipeline})
    assert line.startswith(f"error: task.model.config: the pipeline of {split} fails on the first image (TypeError: ")
