"""What a user can get wrong about a detector: one line that says what to do, and exit code 2, before any training."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("mmdet")
# mmengine leaves its copy of a broken config open.
pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed file .*py:ResourceWarning")

ROOT = Path(__file__).parents[3]
MODEL = "task.model.options.model"
SCENES = {"train": 4, "select": 2, "test": 2, "size": 64}
MISFIT = "does not fit the network of task.model.config"


def one_line(code: int, stderr: str) -> str:
    """Return the line of a mistake; fail when it is none, or more than one."""
    line = stderr.strip()
    assert code == 2, line
    assert len(line.splitlines()) == 1
    assert line.startswith("error: ")
    return line


@pytest.fixture
def refused(tiny_detector, tmp_path, monkeypatch, capsys, library, load_tool):
    """Return a function that runs the tool on the tiny config with other values, and returns the line it ends with."""
    main = load_tool("run").main

    def run(over: dict, early: bool = True) -> str:
        for path, value in over.items():
            put(tiny_detector, path.split("."), value)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_detector))
        arguments = ["--config", str(tmp_path / "config.yaml"), "--work-dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "--stage", "collect"])
        line = one_line(main(), capsys.readouterr().err)
        assert not (early and (tmp_path / "run" / "population" / "logs").exists()), "no training has begun"
        return line

    return run


def put(values: dict, path: list[str], value) -> None:
    """Put a value at a place in nested sections."""
    *above, last = path
    for key in above:
        values = values.setdefault(key, {})
    values[last] = value


@pytest.fixture
def scenes(tmp_path, library):
    """Return the folder of scenes of our own, to be damaged."""
    from pdiff_plugins.openmmlab.scenes import compose_scenes

    return Path(shutil.copytree(compose_scenes(**SCENES), tmp_path / "scenes"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('default_scope = "mmseg"\nmodel = dict(type="FCN")', "is for mmseg, expected a config of mmdet. Give one"),
        ('x = 1\nnames = ["a"]', "has no model, so it is no whole config of mmdet. Give one"),
        ("import os\n\n\ndef main():\n    return os.name", "has no model, so it is no whole config of mmdet. Give one"),
        ('model = dict(type="FCOS")', "has no train_dataloader, so it is no whole config of mmdet. Give one"),
        ("model = dict(", "cannot be read (SyntaxError: '(' was never closed"),
        ("model = 1 / 0", "cannot be read (ZeroDivisionError: division by zero)"),
        ('_base_ = "absent.py"', "cannot be read (FileNotFoundError:"),
        ("raise SystemExit(3)", "cannot be read (SystemExit"),
    ],
    ids=["mmseg", "values", "module", "model alone", "syntax", "raises", "base", "exits"],
)
def test_config_that_is_none_of_mmdet(refused, tmp_path, content, words):
    (tmp_path / "own.py").write_text(f"{content}\n")
    line = refused({"task.model": {"config": str(tmp_path / "own.py")}})
    assert line.startswith(f"error: task.model.config: {tmp_path / 'own.py'} {words}")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("own.py", "got 'own.py', which is no file. Check the path."),
        ("mmdetection::fcos", "got 'mmdetection::fcos', but there is no package 'mmdetection'. Install it."),
        ("mmdet::fcos/fcos_r51", "got 'mmdet::fcos/fcos_r51', but mmdet ships no such config. See "),
        (["own.py"], "got ['own.py'], expected a text."),
    ],
)
def test_config_that_is_not_there(refused, config, words):
    assert refused({"task.model.config": config}).startswith(f"error: task.model.config: {words}")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("type", "FCOZ", "mmdet cannot build its model (KeyError: 'FCOZ is not in the mmdet::model registry"),
        ("backbone.colour", 3, "mmdet cannot build its model (TypeError: ResNet.__init__() got an unexpected keyword"),
        ("backbone", 3, "mmdet cannot build its model (TypeError: "),
        (None, {"_delete_": True, "type": "ResNet", "depth": 18}, "builds a ResNet, expected a detector."),
        ("neck.num_outs", 1, "(AssertionError: assert num_outs >= "),
    ],
)
def test_model_that_mmdet_cannot_build(refused, option, value, words):
    line = refused({f"{MODEL}.{option}" if option else MODEL: value})
    assert line.startswith("error: task.model.config: ")
    assert words in line


PIPELINE = "task.model.options.test_dataloader.dataset.pipeline"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("task.model.options", 3, "task.model.options: got 3, expected a section."),
        (PIPELINE, {"9": {"scale": 64}}, "task.model.options: test_dataloader does not fit "),
        (f"{MODEL}.neck.in_channels", [1, 2], "its network cannot predict a batch of the test data (RuntimeError: "),
        (f"{PIPELINE}.1.scale", "large", "(TypeError: Scale must be a number or tuple of int, but got <class 'str'>)"),
    ],
)
def test_options_that_do_not_fit_the_config(refused, path, value, words):
    assert words in refused({path: value})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": torch.zeros(2)}, f"{MISFIT} (it lacks 'backbone.conv1.weight'; "),
        ("shape", f"{MISFIT} (bbox_head.conv_cls.weight has the shape (3, 16, 3, 3), expected (10, 16, 3, 3)). Give"),
        ("another", f"{MISFIT} (the network has no 'extra'; 0 missing, 1 unknown). Give"),
        (b"text", "cannot be read"),
        (None, "cannot be read"),
    ],
    ids=["nothing of it", "shape", "unknown tensor", "no checkpoint", "missing"],
)
def test_checkpoint_that_does_not_fit(refused, tmp_path, detected, content, words):
    path = tmp_path / "own.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save({"state_dict": spoiled(detected, content)}, path)
    line = refused({"task.model.checkpoint": str(path)})
    assert f"{path}" in line
    assert words in line


def spoiled(detected, content) -> dict[str, torch.Tensor]:
    """Return a state dict that does not fit, given itself or made from the weights of the finished run."""
    from pdiff.runtime.storage import read_tensors

    if isinstance(content, dict):
        return content
    change = {"shape": ("bbox_head.conv_cls.weight", torch.zeros(3, 16, 3, 3)), "another": ("extra", torch.zeros(1))}
    return {**read_tensors(detected.base), **dict([change[content]])}


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
        (lambda folder, split: (folder / f"{split}.json").unlink(), "(FileNotFoundError: "),
        (lambda folder, split: (folder / f"{split}.json").write_text(""), "(JSONDecodeError: "),
        (lambda folder, split: (folder / f"{split}.json").write_text("{}"), "(KeyError: 'categories')"),
        (lambda folder, split: (folder / f"{split}.json").write_text("[]"), "(AssertionError: annotation file format"),
    ],
    ids=["missing", "empty", "without sections", "a list"],
)
def test_annotations_that_cannot_be_read(refused, scenes, damage, words, split):
    damage(scenes, split)
    line = refused({"task.data": {"root": str(scenes)}})
    assert line.startswith(f"error: task.data: {CANNOT.format(split)}{words}")
    assert line.endswith(CHECK)


@pytest.mark.parametrize(
    ("split", "damage", "words"),
    [
        ("test", lambda path: rewrite(path, annotations=[]), "no image of test has an annotated object ("),
        ("select", lambda path: rewrite(path, annotations=[]), "no image of select has an annotated object ("),
        ("test", rename_categories, "no image of test has an annotated object ("),
        ("train", lambda path: rewrite(path, annotations=[]), "the data set of train has no image (train.json)."),
        ("test", lambda path: rewrite(path, annotations=[], images=[]), "the data set of test has no image (test."),
    ],
    ids=["test", "select", "categories", "train", "no image"],
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
    line = refused({"task.data": {"root": str(scenes)}}, early=split == "test")
    assert f"failed to load image: {scenes / split}/0" in line


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
    ("damage", "split"), [(drop_a_category, "train"), (drop_a_category, "test"), (turn_categories_round, "select")]
)
def test_annotations_that_number_the_classes_otherwise(refused, scenes, damage, split):
    damage(scenes / f"{split}.json")
    line = refused({"task.data": {"root": str(scenes)}, "task.model.options.train_cfg.max_iters": 1})
    assert line.startswith("error: task.data: the annotations of ")
    assert line.endswith("List all in every file, in one order.")


def test_data_that_are_wrapped(refused, scenes):
    data = {"data_root": f"{scenes}/"}
    options = {f"{split}_dataloader.dataset": data for split in ("train", "val")}
    inner = {"type": "CocoDataset", **data, "ann_file": "test.json", "data_prefix": {"img": "test/"}, "pipeline": []}
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


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("task.models", "task: got unknown key 'models'. Did you mean 'model'? Known: data, model, score_threshold."),
        ("task.seed", "task: got unknown key 'seed'. Known: data, model, score_threshold."),
        ("task.model.option", "task.model: got unknown key 'option'. Did you mean 'options'? Known: "),
        ("task.data.scene", "task.data: got unknown key 'scene'. Did you mean 'scenes'? Known: "),
        ("task.data.scenes.sise", "task.data.scenes: got unknown key 'sise'. Did you mean 'size'? Known: "),
        ("task.data.select.image", "task.data.select: got unknown key 'image'. Did you mean 'images'? Known: "),
        ("task.data.test.source", "task.data.test: got unknown key 'source'. Known: images."),
        ("collect.steps", "collect: got unknown key 'steps'. Known: branches, draws, finetune, train."),
        ("collect.train.epochs", "collect.train: got unknown key 'epochs'. Known: enabled, validate."),
    ],
)
def test_unknown_key_is_refused_with_those_that_exist(refused, path, line):
    assert refused({path: 1}).startswith(f"error: {line}")


FINETUNE = {
    "stepz": (1, ": got unknown key 'stepz'. Did you mean 'steps'? Known: every, mode, optimizer, steps."),
    "steps": (0, ".steps: got 0, expected an integer from 1 on."),
    "mode": ("evil", ".mode: got 'evil'. Did you mean 'eval'? Known: eval, train."),
    "optimizer": ({"type": "AdamX"}, ".optimizer: got {'type': 'AdamX'}, which mmengine cannot build ("),
}


@pytest.mark.parametrize("key", FINETUNE)
def test_fine_tuning_that_cannot_be(refused, key):
    value, words = FINETUNE[key]
    line = refused({f"collect.finetune.{key}": value, "collect.train.enabled": False})
    assert line.startswith(f"error: collect.finetune{words}")


@pytest.mark.parametrize("key", FINETUNE)
def test_fine_tuning_that_cannot_be_is_refused_before_the_base_training(refused, key):
    options = {"task.model.options.train_cfg.max_iters": 1}
    refused({f"collect.finetune.{key}": FINETUNE[key][0], **options})


def test_fine_tuning_shorter_than_the_way_to_its_first_snapshot(refused):
    line = refused({"collect.finetune.every": 7, "collect.train.enabled": False})
    assert line.startswith("error: collect.finetune.every: got 7, expected")


def test_optimizer_that_is_no_section(refused):
    line = refused({"collect.finetune.optimizer": "AdamW", "collect.train.enabled": False})
    assert line.startswith("error: collect.finetune.optimizer: got 'AdamW', expected a section")


@pytest.mark.parametrize("value", ["high", None, True, [0.3]])
def test_score_threshold_that_is_no_number(refused, value):
    line = refused({"task.score_threshold": value})
    assert line == f"error: task.score_threshold: got {value!r}, expected a number."


def test_score_threshold_that_no_score_can_reach(refused):
    line = refused({"task.score_threshold": 30, "task.model.options.train_cfg.max_iters": 1})
    assert line.startswith("error: task.score_threshold: got 30, expected")


@pytest.mark.parametrize("value", [None, {"type": "VOCMetric"}, [{"type": "VOCMetric"}, {"type": "DumpDetResults"}]])
def test_evaluator_without_the_metric_of_coco(refused, value):
    evaluator = value if isinstance(value, list) else {"_delete_": True, **value} if value else None
    line = refused({"task.model.options.test_evaluator": evaluator})
    assert line.startswith("error: task.model.config: its test_evaluator has no CocoMetric, ")
    assert "Add {type: CocoMetric}" in line


@pytest.mark.parametrize("classes", [3, 80])
def test_detector_of_another_number_of_classes_than_the_data(refused, classes):
    line = refused({f"{MODEL}.bbox_head.num_classes": classes, "task.model.options.train_cfg.max_iters": 1})
    assert f"{classes} classes" in line


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("module(bbox_head.conv_class)", "got module(bbox_head.conv_class), which is not in the network. Closest name"),
        ("module(roi_head.bbox_head)", "got module(roi_head.bbox_head), which is not in the network. Closest names: "),
        ("bbox_head", "got unknown selector 'bbox_head'. Did you mean 'head'?"),
    ],
)
def test_selection_inside_a_module_that_the_detector_does_not_have(refused, selector, words):
    assert refused({"select": selector}).startswith(f"error: select: {words}")


def test_operator_that_only_the_compiled_mmcv_has_is_named_before_any_training(refused):
    from pdiff_plugins.openmmlab.extension import provide_operators

    if not provide_operators():
        pytest.skip("this mmcv has all operators")
    neck = {"_delete_": True, "type": "FPN_CARAFE", "in_channels": [16, 32], "out_channels": 16, "num_outs": 2}
    line = refused({f"{MODEL}.neck": neck})
    assert line.startswith("error: mmcv: the operator carafe_forward is only in the compiled mmcv")
    assert "pip install" in line


class Absent:
    """Hides packages, as if they were not installed."""

    def __init__(self, *packages: str):
        self.packages = packages

    def find_spec(self, name: str, path=None, target=None):
        """Refuse the packages, and leave the others to those who know them."""
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def forget(monkeypatch):
    """Return a function that takes a package out of the interpreter until the end of the test."""

    def forget(package: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)

    return forget


@pytest.mark.parametrize("package", ["mmdet", "mmcv", "faster_coco_eval"])
def test_package_that_is_not_installed_is_named(refused, forget, monkeypatch, package):
    forget(package)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    assert refused({}) == f"error: plugin detection: needs the package {package}. Run: pip install 'pdiff[detection]'."


def test_mmdet_that_does_not_fit_mmcv_is_one_line(refused, forget, monkeypatch, tmp_path):
    forget("mmdet")
    (tmp_path / "mmdet").mkdir()
    (tmp_path / "mmdet" / "__init__.py").write_text("assert False, 'MMCV==9.0.0 is used but incompatible'\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = refused({})
    assert line.startswith("error: mmdet cannot be imported (AssertionError: MMCV==9.0.0 is used but incompatible). ")
    assert "pip install" in line


TWICE = """
import runpy, sys
for plugin in ("detection", "classification"):
    sys.argv = [sys.argv[0], "--plugin", plugin, "--work-dir", sys.argv[-1]]
    print(runpy.run_path(sys.argv[0])["main"]())
"""


def test_opencv_that_lacks_a_system_library_is_one_line_for_every_plugin(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    code = TWICE.replace("sys.argv[0]", repr(str(ROOT / "tools" / "run.py")))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stdout.split() == ["2", "2"]
    for line in done.stderr.splitlines():
        assert line.startswith("error: OpenCV cannot be loaded (libGL.so.1: cannot open shared object file). Run: pip ")
        assert "opencv-python-headless" in line
