"""What a user can get wrong about a detector and its data: one line that says what to do, before any training."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

MODEL = "task.model.options.model"
PIPELINE = "task.model.options.test_dataloader.dataset.pipeline"
SCENES = {"train": 4, "select": 2, "test": 2, "size": 64}


@pytest.fixture
def refused(refused, detector):
    """Return a function from other values of the tiny config to the line that a run ends with."""
    return partial(refused, detector)


@pytest.fixture
def scenes(tmp_path, detector):
    """Return the folder of scenes of our own, to be damaged."""
    from pdiff_plugins.openmmlab.scenes import compose_scenes

    return Path(shutil.copytree(compose_scenes(**SCENES), tmp_path / "scenes"))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (f"{MODEL}.neck.in_channels", [1, 2], "its network cannot predict a batch of the test data (RuntimeError: "),
        (f"{PIPELINE}.1.scale", "large", "(TypeError: Scale must be a number or tuple of int, but got <class 'str'>)"),
    ],
)
def test_options_that_do_not_fit_the_config(refused, path, value, words):
    assert words in refused({path: value})


def rewrite(path: Path, **values) -> None:
    """Replace some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename_categories(path: Path) -> None:
    """Give the categories of annotations other names."""
    categories = [{**c, "name": f"digit {c['name']}"} for c in json.loads(path.read_text())["categories"]]
    rewrite(path, categories=categories)


CANNOT = "the data set of {} cannot be built "
CHECK = "Check its data_root, ann_file and metainfo in task.model.config."


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"", "is no JSON (JSONDecodeError: Expecting value: line 1 column 1 (char 0), it begins with b'')."),
        (b"{}", "has no 'images', expected a list."),
        (b"[]", "holds a list, expected an object with images, annotations and categories."),
    ],
    ids=["empty", "without sections", "a list"],
)
def test_annotations_that_are_none(refused, scenes, damage, words, split):
    (scenes / f"{split}.json").write_bytes(damage)
    line = refused({"task.data": {"root": str(scenes)}})
    assert line.startswith(f"error: task.data: {scenes}/{split}.json: {words}")


@pytest.mark.parametrize("split", ["train", "test"])
def test_annotations_that_are_not_there(refused, scenes, split):
    (scenes / f"{split}.json").unlink()
    line = refused({"task.data": {"root": str(scenes)}})
    assert line.startswith(f"error: task.data: {CANNOT.format(split)}(FileNotFoundError: ")
    assert line.endswith(CHECK)


@pytest.mark.parametrize(
    ("split", "damage", "words"),
    [
        ("test", lambda path: rewrite(path, annotations=[]), "no image of test has an annotated object ("),
        ("select", lambda path: rewrite(path, annotations=[]), "no image of select has an annotated object ("),
        ("train", lambda path: rewrite(path, annotations=[]), "the data set of train has no image (train.json)."),
        ("test", lambda path: rewrite(path, annotations=[], images=[]), "the data set of test has no image (test."),
    ],
    ids=["test", "select", "train", "no image"],
)
def test_annotations_without_an_object(refused, scenes, split, damage, words):
    damage(scenes / f"{split}.json")
    line = refused({"task.data": {"root": str(scenes)}})
    assert line.startswith(f"error: task.data: {words}")
    assert line.endswith("Check the annotations, and that metainfo names the classes in them.")


def test_annotations_without_an_object_in_a_data_set_that_mmengine_serialises(refused, scenes):
    rewrite(scenes / "train.json", annotations=[])
    settings = "task.model.options.train_dataloader.dataset.serialize_data"
    line = refused({"task.data": {"root": str(scenes)}, settings: True})
    assert "the data set of train has no image" in line


@pytest.mark.parametrize("split", ["train", "select", "test"])
def test_image_that_is_not_there(refused, scenes, split):
    path = sorted((scenes / split).iterdir())[-1]
    path.unlink()
    line = refused({"task.data": {"root": str(scenes)}})
    assert line == f"error: task.data: the data set of {split} names {path}, which is not there. Check data_prefix."


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_that_cannot_be_decoded(refused, scenes, split):
    for path in (scenes / split).iterdir():
        path.write_bytes(b"no image")
    line = refused({"task.data": {"root": str(scenes)}})
    assert line.startswith(f"error: task.data: {scenes / split}/000000.png: cannot be read as an image (Unidentified")


def drop_a_category(path: Path) -> None:
    """Leave the first category out of annotations, and all of its objects."""
    content = json.loads(path.read_text())
    first = content["categories"][0]["id"]
    rows = [row for row in content["annotations"] if row["category_id"] != first]
    rewrite(path, categories=content["categories"][1:], annotations=rows)


def turn_categories_round(path: Path) -> None:
    """List the categories of annotations in another order."""
    rewrite(path, categories=json.loads(path.read_text())["categories"][::-1])


@pytest.mark.parametrize(
    ("damage", "split"), [(drop_a_category, "train"), (rename_categories, "test"), (turn_categories_round, "select")]
)
def test_annotations_that_number_the_classes_otherwise(refused, scenes, damage, split):
    damage(scenes / f"{split}.json")
    line = refused({"task.data": {"root": str(scenes)}, "task.model.options.train_cfg.max_iters": 1})
    assert line.startswith("error: task.data: the annotations of ")
    assert line.endswith(("List all in every file, in one order.", "Give those of the data as task.model.classes."))


def test_data_that_are_wrapped(refused, scenes):
    data = {"data_root": f"{scenes}/"}
    options = {f"{split}_dataloader.dataset": data for split in ("train", "val")}
    inner = {"type": "CocoDataset", **data, "ann_file": "test.json", "data_prefix": {"img": "test/"}, "pipeline": []}
    inner["metainfo"] = {"classes": tuple("0123456789")}
    wrapper = {"_delete_": True, "type": "RepeatDataset", "times": 2, "dataset": inner}
    options = {f"task.model.options.{key}": value for key, value in options.items()}
    line = refused({"task.data": {}, **options, "task.model.options.test_dataloader.dataset": wrapper})
    assert line.startswith("error: task.data: the data set of test is a RepeatDataset, expected a CocoDataset. ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"root": "/absent"}, f"{CANNOT.format('train')}(FileNotFoundError: [Errno 2] No such file or directory: '/"),
        ({"root": "/absent", "scenes": SCENES}, "root and scenes"),
        ({"root": 3}, "root: got 3, expected a text."),
    ],
    ids=["absent", "root and scenes", "number"],
)
def test_root_that_is_none(refused, data, words):
    line = refused({"task.data": data})
    assert line.startswith("error: task.data")
    assert words in line


@pytest.mark.parametrize("value", ["high", None, True, [0.3]])
def test_score_threshold_that_is_no_number(refused, value):
    line = refused({"task.score_threshold": value})
    assert line == f"error: task.score_threshold: got {value!r}, expected a number."


def test_score_threshold_that_no_score_can_reach(refused):
    line = refused({"task.score_threshold": 30, "task.model.options.train_cfg.max_iters": 1})
    assert line.startswith("error: task.score_threshold: got 30, expected")


@pytest.mark.parametrize("classes", [3, 80])
def test_detector_of_another_number_of_classes_than_the_data(refused, classes):
    line = refused({f"{MODEL}.bbox_head.num_classes": classes, "task.model.options.train_cfg.max_iters": 1})
    assert f"{classes} classes" in line


def test_operator_that_only_the_compiled_mmcv_has_is_named_before_any_training(refused):
    from pdiff_plugins.openmmlab.extension import provide_operators

    if not provide_operators():
        pytest.skip("this mmcv has all operators")
    neck = {"_delete_": True, "type": "FPN_CARAFE", "in_channels": [16, 32], "out_channels": 16, "num_outs": 2}
    line = refused({f"{MODEL}.neck": neck})
    assert line.startswith("error: mmcv: the operator carafe_forward is only in the compiled mmcv")
    assert "pip install" in line
