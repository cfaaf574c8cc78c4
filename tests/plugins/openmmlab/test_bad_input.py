"""What a user can get wrong about a detector or a segmentor: one line that says what to do, before any training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pdiff.runtime.storage import read_tensors

# mmengine leaves its copy of a broken config open.
pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed file .*py:ResourceWarning")

ROOT = Path(__file__).parents[3]
MODEL = "task.model.options.model"
PIPELINE = "task.model.options.test_dataloader.dataset.pipeline"
FCN = ("pdiff_plugins.segmentation::fcn_r18_digits", "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024")
FCOS = ("pdiff_plugins.detection::fcos_r18_digits", "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco")
OTHERS = {"detection": ("mmseg", *FCN), "segmentation": ("mmdet", *FCOS)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('default_scope = "{other}"\nmodel = dict(type="FCN")', "is for {other}, expected a config of {own}. Give one"),
        ('x = 1\nnames = ["a"]', "has no model, so it is no whole config of {own}. Give one"),
        ("import os\n\n\ndef main():\n    return os.name", "has no model, so it is no whole config of {own}. Give one"),
        ('model = dict(type="FCOS")', "has no train_dataloader, so it is no whole config of {own}. Give one"),
        ("model = dict(", "cannot be read (SyntaxError: '(' was never closed"),
        ("model = 1 / 0", "cannot be read (ZeroDivisionError: division by zero)"),
        ('_base_ = "absent.py"', "cannot be read (FileNotFoundError:"),
        ("raise SystemExit(3)", "cannot be read (SystemExit"),
    ],
    ids=["other library", "values", "module", "model alone", "syntax", "raises", "base", "exits"],
)
def test_config_that_is_none_of_the_library(refused, case, tmp_path, content, words):
    names = {"own": case.library.name, "other": OTHERS[case.plugin][0]}
    (tmp_path / "own.py").write_text(f"{content.format(**names)}\n")
    line = refused(case, {"task.model": {"config": str(tmp_path / "own.py")}})
    assert line.startswith(f"error: task.model.config: {tmp_path / 'own.py'} {words.format(**names)}")


@pytest.mark.parametrize("number", [1, 2], ids=["of ours", "shipped"])
def test_config_of_the_other_library(refused, case, number):
    other, own, config = OTHERS[case.plugin][0], case.library.name, OTHERS[case.plugin][number]
    pytest.importorskip(other)
    assert refused(case, {"task.model": {"config": config}}) == (
        f"error: task.model.config: {config} is for {other}, expected a config of {own}. "
        f"Give one whose default_scope is {own!r}."
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("own.py", "got 'own.py', which is no file. Check the path."),
        ("mmdetection::fcos", "got 'mmdetection::fcos', but there is no package 'mmdetection'. Install it."),
        ("{own}::fcos/fcos_r51", "got '{own}::fcos/fcos_r51', but {own} ships no such config. See "),
        (["own.py"], "got ['own.py'], expected a text."),
    ],
)
def test_config_that_is_not_there(refused, case, config, words):
    config = config.format(own=case.library.name) if isinstance(config, str) else config
    line = refused(case, {"task.model.config": config})
    assert line.startswith(f"error: task.model.config: {words.format(own=case.library.name)}")


CANNOT = "cannot build its model"


@pytest.mark.parametrize(
    ("plugin", "option", "value", "words"),
    [
        ("detection", ".type", "FCOZ", f"mmdet {CANNOT} (KeyError: 'FCOZ is not in the mmdet::model registry"),
        ("detection", ".backbone.colour", 3, f"mmdet {CANNOT} (TypeError: ResNet.__init__() got an unexpected keyword"),
        ("detection", ".backbone", 3, f"mmdet {CANNOT} (TypeError: "),
        ("detection", "", {"_delete_": True, "type": "ResNet", "depth": 18}, "builds a ResNet, expected a detector."),
        ("detection", ".neck.num_outs", 1, "(AssertionError: assert num_outs >= "),
        ("segmentation", ".type", "EncoderDecodr", f"mmseg {CANNOT} (KeyError: 'EncoderDecodr is not in"),
        ("segmentation", ".decode_head.colour", 3, f"mmseg {CANNOT} (TypeError: "),
        ("segmentation", ".backbone.num_stages", 3, f"mmseg {CANNOT} (AssertionError: "),
        ("segmentation", ".backbone.base_channels", 8, "input[2, 8, 64, 64] to have 4 channels, but got 8 channels"),
    ],
)
def test_model_that_the_library_cannot_build(refused, cases, plugin, option, value, words):
    line = refused(cases(plugin), {f"{MODEL}{option}": value})
    assert line.startswith("error: task.model.config: ")
    assert words in line


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("task.model.options", 3, "task.model.options: got 3, expected a section."),
        (PIPELINE, {"9": {"scale": 64}}, "task.model.options: test_dataloader does not fit "),
    ],
)
def test_options_that_do_not_fit_the_config(refused, case, path, value, words):
    assert words in refused(case, {path: value})


FIRST_OF_UNET = "backbone.encoder.0.0.convs.0.conv.weight"
WEIGHTS = {
    "detection": ("backbone.conv1.weight", "bbox_head.conv_cls.weight", (3, 16, 3, 3), (10, 16, 3, 3)),
    "segmentation": (FIRST_OF_UNET, "decode_head.conv_seg.weight", (11, 6, 1, 1), (11, 4, 1, 1)),
}


@pytest.mark.parametrize("kind", ["nothing of it", "shape", "lacks one", "unknown tensor", "no checkpoint", "missing"])
def test_checkpoint_that_does_not_fit(refused, case, tmp_path, kind):
    path, state = tmp_path / "own.pth", read_tensors(case.run.base)
    first, name, wrong, right = WEIGHTS[case.plugin]
    words = {
        "nothing of it": f"lacks {first!r} and {len(state) - 1} more of the network's tensors; it has 'state_dict.a'.",
        "shape": f"'state_dict.{name}' has the shape {wrong}, expected {right} as the network has it. Give a file of",
        "lacks one": f"lacks {name!r}; it has 'state_dict.",
        "unknown tensor": "holds 'extra', which the network does not have. Give a file of this network",
        "no checkpoint": "is text that begins with 'text'. Name checkpoints alone.",
        "missing": "cannot be read (",
    }
    spoiled = {
        "nothing of it": {"a": torch.zeros(2)},
        "shape": {**state, name: torch.zeros(wrong)},
        "lacks one": {key: tensor for key, tensor in state.items() if key != name},
        "unknown tensor": {**state, "extra": torch.zeros(1)},
    }
    if kind == "no checkpoint":
        path.write_bytes(b"text")
    elif kind != "missing":
        torch.save({"state_dict": spoiled[kind]}, path)
    assert refused(case, {"task.model.checkpoint": str(path)}).startswith(f"error: {path}: {words[kind]}")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("task.models", "task: got unknown key 'models'. Did you mean 'model'? Known: {task}."),
        ("task.seed", "task: got unknown key 'seed'. Known: {task}."),
        ("task.model.option", "task.model: got unknown key 'option'. Did you mean 'options'? Known: "),
        ("task.data.scene", "task.data: got unknown key 'scene'. Did you mean 'scenes'? Known: "),
        ("task.data.scenes.sise", "task.data.scenes: got unknown key 'sise'. Did you mean 'size'? Known: "),
        ("task.data.train.image", "task.data.train: got unknown key 'image'. Did you mean 'images'?"),
        ("task.data.select.image", "task.data.select: got unknown key 'image'. Did you mean 'images'? Known: "),
        ("task.data.test.source", "task.data.test: got unknown key 'source'. Known: images."),
        ("collect.steps", "collect: got unknown key 'steps'. Known: branches, draws, finetune, train."),
        ("collect.train.epochs", "collect.train: got unknown key 'epochs'. Known: enabled, validate."),
    ],
)
def test_unknown_key_is_refused_with_those_that_exist(refused, case, path, line):
    known = {"detection": "data, model, score_threshold", "segmentation": "check_labels, data, model, signature_pixels"}
    assert refused(case, {path: 1}).startswith(f"error: {line.format(task=known[case.plugin])}")


def test_unknown_key_of_one_plugin_is_refused_with_the_closest(refused, segmentor):
    line = refused(segmentor, {"task.signature_pixel": 1})
    assert line.startswith("error: task: got unknown key 'signature_pixel'. Did you mean 'signature_pixels'?")


FINETUNE = {
    "stepz": (1, ": got unknown key 'stepz'. Did you mean 'steps'? Known: every, mode, optimizer, steps, warmup."),
    "steps": (0, ".steps: got 0, expected an integer from 1 on."),
    "every": (7, ".every: got 7, expected"),
    "warmup": (-1, ".warmup: got -1, expected an integer from 0 on."),
    "mode": ("evil", ".mode: got 'evil'. Did you mean 'eval'? Known: eval, train."),
    "optimizer": ({"type": "AdamX"}, ".optimizer: got {'type': 'AdamX'}, which mmengine cannot build ("),
}


@pytest.mark.parametrize("trained", [False, True], ids=["without base training", "before the base training"])
@pytest.mark.parametrize("key", FINETUNE)
def test_fine_tuning_that_cannot_be(refused, case, key, trained):
    value, words = FINETUNE[key]
    line = refused(case, {f"collect.finetune.{key}": value, "collect.train.enabled": trained})
    assert line.startswith(f"error: collect.finetune{words}")


def test_optimizer_that_is_no_section(refused, case):
    line = refused(case, {"collect.finetune.optimizer": "AdamW", "collect.train.enabled": False})
    assert line.startswith("error: collect.finetune.optimizer: got 'AdamW', expected a section")


METRICS = {
    "detection": ("CocoMetric", "VOCMetric", "DumpDetResults"),
    "segmentation": ("IoUMetric", "CityscapesMetric", "DepthMetric"),
}


@pytest.mark.parametrize("kind", ["none", "another", "others"])
def test_evaluator_without_the_metric(refused, case, kind):
    metric, *others = METRICS[case.plugin]
    several = [{"type": name} for name in others]
    values = {"none": None, "another": {"_delete_": True, **several[0]}, "others": several}
    line = refused(case, {"task.model.options.test_evaluator": values[kind]})
    assert line == (
        f"error: task.model.config: its test_evaluator has no {metric}, which the candidates are measured with. "
        f"Add {{type: {metric}}}, and the data that it needs."
    )


@pytest.mark.parametrize(
    ("plugin", "selector", "words"),
    [
        ("detection", "module(bbox_head.conv_class)", "which is not in the network. Closest names: "),
        ("detection", "module(roi_head.bbox_head)", "which is not in the network. Closest names: "),
        ("segmentation", "module(auxiliary_head)", "which is not in the network. Closest names: "),
    ],
)
def test_selection_inside_a_module_that_the_network_does_not_have(refused, cases, plugin, selector, words):
    assert refused(cases(plugin), {"select": selector}).startswith(f"error: select: got {selector}, {words}")


@pytest.mark.parametrize(
    ("plugin", "selector", "words"),
    [("detection", "bbox_head", "Did you mean 'head'?"), ("segmentation", "decode_head", "Known: ")],
)
def test_selector_that_is_none(refused, cases, plugin, selector, words):
    line = refused(cases(plugin), {"select": selector})
    advice = f"Write module({selector}) for the module. {words}"
    assert line.startswith(f"error: select: got unknown selector {selector!r}. {advice}")


class Absent:
    """Hides a package, as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None):
        """Refuse the package, and leave the others to those who know them."""
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def forget(monkeypatch):
    """Return a function that takes a package out of the interpreter until the end of the test."""

    def forget(package: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)

    return forget


@pytest.mark.parametrize(
    ("plugin", "package"),
    [
        *(("detection", package) for package in ("mmdet", "mmcv", "faster_coco_eval")),
        *(("segmentation", package) for package in ("mmseg", "mmcv")),
    ],
)
def test_package_that_is_not_installed_is_named(refused, cases, forget, monkeypatch, plugin, package):
    case = cases(plugin)
    forget(package)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    line = f"error: plugin {plugin}: needs the package {package}. Run: pip install 'pdiff[{plugin}]'."
    assert refused(case, {}) == line


def test_library_that_does_not_fit_mmcv_is_one_line(refused, case, forget, monkeypatch, tmp_path):
    name = case.library.name
    forget(name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("assert False, 'MMCV==9.0.0 is used but incompatible'\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = refused(case, {})
    reason = "AssertionError: MMCV==9.0.0 is used but incompatible"
    assert line.startswith(f"error: {name} cannot be imported ({reason}). ")
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
