"""mmdet's configs found, opened and changed by options; its networks built from them, quietly and by seed."""

import copy
import gc
import logging
import random
import time

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from pdiff_plugins.openmmlab.libraries import MMDET, MMSEG, build_network, find_config, one_line, open_config, silence

from pdiff.runtime.errors import PdiffError

SHIPPED = "pdiff_plugins.detection::fcos_r18_digits"
WHOLE = "model = dict(type='FCOS')\ntrain_dataloader = dict(batch_size=2)\ntest_dataloader = dict(batch_size=2)\n"


@pytest.fixture
def written(tmp_path):
    """Return a function from the text of a config to its path."""

    def write(text: str) -> str:
        path = tmp_path / "config.py"
        path.write_text(text)
        return str(path)

    return write


def raised(function, *args, **kwargs) -> str:
    """Return the line of the error that a call ends with."""
    with pytest.raises(PdiffError) as caught:
        function(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.__cause__ is None
    return line


def test_a_path_is_found(written):
    path = written(WHOLE)
    assert str(find_config(path)) == path


@pytest.mark.parametrize("suffix", ["", ".py"])
def test_a_config_that_mmdet_ships_is_found_with_and_without_its_suffix(suffix):
    name = "faster_rcnn/faster-rcnn_r50_fpn_1x_coco"
    path = find_config(f"mmdet::{name}{suffix}")
    assert path.is_file()
    assert path.as_posix().endswith(f"mmdet/.mim/configs/{name}.py")


def test_a_config_that_a_plugin_ships_is_found():
    path = find_config(SHIPPED)
    assert path.is_file()
    assert path.as_posix().endswith("detection/configs/fcos_r18_digits.py")


@pytest.mark.parametrize("config", ["nowhere/config.py", "", "mmdet:faster_rcnn"])
def test_a_path_that_is_no_file_is_refused(config):
    assert raised(find_config, config) == f"task.model.config: got {config!r}, which is no file. Check the path."


def test_a_folder_is_refused(tmp_path):
    config = str(tmp_path)
    assert raised(find_config, config) == f"task.model.config: got {config!r}, which is no file. Check the path."


@pytest.mark.parametrize("package", ["mmdettt", "no.such.package", "sys"])
def test_a_package_that_is_not_there_is_refused(package):
    config = f"{package}::fcos/fcos"
    line = f"task.model.config: got {config!r}, but there is no package {package!r}. Install it."
    assert raised(find_config, config) == line


def test_a_file_that_a_package_does_not_ship_is_refused_with_the_folder_of_those_it_has():
    line = raised(find_config, "mmdet::fcos/fcos_r999")
    assert line.startswith("task.model.config: got 'mmdet::fcos/fcos_r999', but mmdet ships no such config. See /")
    assert line.endswith("mmdet/.mim/configs/fcos.")


def test_the_folder_that_is_named_is_one_that_the_package_has():
    line = raised(find_config, "pdiff_plugins.detection::fcos_r999")
    assert line.endswith("detection/configs.")


def test_options_are_merged_nested_and_dotted(mmdet):
    options = {
        "model": {"neck": {"num_outs": 5}, "backbone": {"depth": 34}},
        "optim_wrapper.optimizer.lr": 0.5,
        "param_scheduler.0.end": 7,
        "train_dataloader.dataset": {"_delete_": True, "type": "CocoDataset"},
        "custom_hooks": [{"type": "EMAHook"}],
    }
    before = copy.deepcopy(options)
    plain, changed = open_config(mmdet, SHIPPED), open_config(mmdet, SHIPPED, options=options)
    assert options == before
    assert (changed.model.backbone.depth, changed.model.backbone.type) == (34, "ResNet")
    assert (changed.model.neck.num_outs, changed.model.neck.type) == (5, "FPN")
    assert (changed.optim_wrapper.optimizer.lr, changed.optim_wrapper.optimizer.type) == (0.5, "AdamW")
    ends = [[scheduler.end for scheduler in config.param_scheduler] for config in (plain, changed)]
    assert ends[1] == [7, *ends[0][1:]]
    assert changed.train_dataloader.dataset == {"type": "CocoDataset"}
    assert changed.custom_hooks[0].type == "EMAHook"
    assert (plain.model.backbone.depth, plain.get("custom_hooks")) == (18, None)
    assert plain.model.neck.num_outs < 5


def test_lists_in_the_place_of_tuples_become_tuples(mmdet, written):
    path = written(WHOLE + "pair = (1, 2)\nrow = [1, 2]\ndeep = [dict(scale=(3, 4))]\n")
    options = {"pair": [5, 6], "row": [7], "deep.0.scale": [8, 9], "model": {"new": [1]}}
    config = open_config(mmdet, path, options=options)
    assert (config.pair, config.row, config.deep[0].scale, config.model.new) == ((5, 6), [7], (8, 9), [1])
    assert all(isinstance(value, tuple) for value in (config.pair, config.deep[0].scale))


@pytest.mark.parametrize("last", ["model", "model.backbone.depth"])
def test_nested_and_dotted_options_for_one_section_are_all_merged(mmdet, last):
    options = {"model": {"neck": {"num_outs": 5}}, "model.backbone.depth": 34}
    options = {**{key: value for key, value in options.items() if key != last}, last: options[last]}
    before = copy.deepcopy(options)
    changed = open_config(mmdet, SHIPPED, options=options)
    assert (changed.model.backbone.depth, changed.model.neck.num_outs) == (34, 5)
    assert options == before


def test_no_options_leave_the_config_as_it_is(mmdet):
    assert open_config(mmdet, SHIPPED).to_dict() == open_config(mmdet, SHIPPED, options={}).to_dict()


def test_shipped_config_of_mmdet_is_opened_with_those_that_it_builds_on(mmdet):
    config = open_config(mmdet, "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco")
    assert (config.model.type, config.train_cfg.max_epochs, config.default_scope) == ("FasterRCNN", 12, "mmdet")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model = dict(", "SyntaxError"),
        ("model = 1 / 0", "ZeroDivisionError: division by zero"),
        ("model = nowhere_to_be_found", "NameError: name 'nowhere_to_be_found' is not defined"),
        ("_base_ = './missing.py'", "missing.py"),
        ("import os\nmodel = dict(type='FCOS', tools=[os])", "TypeError: cannot pickle 'module' object"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*unclosed file .*py:ResourceWarning")  # mmengine leaves its copy of it open
def test_a_config_that_cannot_be_read_is_refused_with_the_reason(mmdet, written, text, reason):
    path = written(text)
    line = raised(open_config, mmdet, path)
    gc.collect()
    assert line.startswith(f"task.model.config: {path} cannot be read (")
    assert reason in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"param_scheduler.9.end": 1}, "param_scheduler.9.end does not fit"),
        ({"model.backbone.depth.deeper": 1}, "model.backbone.depth.deeper does not fit"),
        (["model.backbone.depth=18"], "expected a section"),
    ],
)
def test_options_that_do_not_fit_the_config_are_refused_where_they_stand(mmdet, options, reason):
    line = raised(open_config, mmdet, SHIPPED, options=options)
    assert line.startswith("task.model.options: ")
    assert reason in line


@pytest.mark.parametrize(
    ("library", "base", "kind"),
    [(MMDET, "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco", "FCOS"), (MMSEG, "_base_/models/fcn_r50-d8", "EncoderDecoder")],
    ids=["mmdet", "mmseg"],
)
def test_a_config_builds_on_one_that_the_library_ships(written, library, base, kind):
    library.load()
    text = "train_dataloader = dict(batch_size=2)\ntest_dataloader = dict(batch_size=2)\n"
    config = open_config(library, written(f"_base_ = '{library.name}::{base}.py'\n{text}"))
    assert (config.model.type, config.train_dataloader.batch_size) == (kind, 2)


def test_a_config_of_another_library_is_refused(mmdet, written):
    path = written(WHOLE + "default_scope = 'mmseg'\n")
    line = f"task.model.config: {path} is for mmseg, expected a config of mmdet."
    assert raised(open_config, mmdet, path) == f"{line} Give one whose default_scope is 'mmdet'."
    assert open_config(MMSEG, path).filename == path


def test_a_config_that_names_no_library_is_taken_for_one_of_this(mmdet, written):
    assert open_config(mmdet, written(WHOLE)).model.type == "FCOS"


@pytest.mark.parametrize("key", ["model", "train_dataloader", "test_dataloader"])
def test_a_config_that_is_not_whole_is_refused_with_what_it_lacks(mmdet, written, key):
    path = written(WHOLE + f"{key} = None\n")
    line = f"task.model.config: {path} has no {key}, so it is no whole config of mmdet."
    assert raised(open_config, mmdet, path).startswith(line)


def test_a_config_without_a_loader_for_validation_is_whole(mmdet, written):
    assert open_config(mmdet, written(WHOLE)).get("val_dataloader") is None


def weights(config, seed: int = 0) -> torch.Tensor:
    """Return all weights of a network in one row."""
    state = build_network(MMDET, config, seed, None).state_dict()
    return torch.cat([tensor.float().flatten() for tensor in state.values()])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_config):
    one = weights(tiny_config())
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    assert torch.equal(weights(tiny_config()), one)
    assert not torch.equal(weights(tiny_config(), seed=1), one)


def test_building_leaves_the_global_random_states(tiny_config):
    expected = []
    for build in (False, True):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if build:
            build_network(MMDET, tiny_config(), 0, None)
        expected.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))
    assert expected[0] == expected[1]


def test_the_network_holds_its_config_and_is_a_detector(tiny_config):
    from mmdet.models.detectors import FCOS

    config = tiny_config()
    network = build_network(MMDET, config, 0, None)
    assert isinstance(network, FCOS)
    assert network.cfg is config


def test_building_leaves_the_scope_as_it_was(tiny_config):
    with MMSEG.scope():
        build_network(MMDET, tiny_config(), 0, None)
        assert DefaultScope.get_current_instance().scope_name == "mmseg"


def test_building_changes_nothing_in_the_config(tiny_config):
    config = tiny_config()
    before = copy.deepcopy(config.to_dict())
    build_network(MMDET, config, 0, None)
    assert config.to_dict() == before


def test_initial_weights_that_the_config_describes_are_given(tiny_config):
    constant = {"type": "Constant", "layer": "Conv2d", "val": 0.25}
    network = build_network(MMDET, tiny_config({"model.neck.init_cfg": constant}), 0, None)
    assert set(network.neck.lateral_convs[0].conv.weight.flatten().tolist()) == {0.25}


def test_weights_can_lie_channels_last(tiny_config):
    plain, other = (build_network(MMDET, tiny_config(), 0, None, channels_last=last) for last in (False, True))
    assert plain.backbone.conv1.weight.is_contiguous()
    assert other.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_mixed_precision_on_cpus_is_there_for_configs(mmdet):
    from mmengine.registry import OPTIM_WRAPPERS

    assert "Bfloat16OptimWrapper" in OPTIM_WRAPPERS


def test_a_network_that_is_no_detector_is_refused(tiny_config):
    config = tiny_config({"model": {"_delete_": True, "type": "ResNet", "depth": 18}})
    line = f"task.model.config: {config.filename} builds a ResNet, expected a detector."
    assert raised(build_network, MMDET, config, 0, None) == line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model.type": "FCOSS"}, "FCOSS is not in the mmdet::model registry"),
        ({"model.backbone.depth": 19}, "invalid depth 19 for resnet"),
        ({"model.backbone.depht": 18}, "unexpected keyword argument 'depht'"),
        ({"model.neck": 3}, "cfg should be a dict"),
    ],
)
def test_a_network_that_mmdet_cannot_build_is_refused_with_the_reason(tiny_config, options, reason):
    config = tiny_config(options)
    line = raised(build_network, MMDET, config, 0, None)
    assert line.startswith(f"task.model.config: {config.filename}: mmdet cannot build its model (")
    assert reason in line
    assert line.endswith("). Give a config of mmdet that fits the installed version.")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Make every download fail at once, and let no earlier one be found."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    "checkpoint",
    ["torchvision://resnet18", "open-mmlab://detectron/resnet50_caffe", "https://example.org/a.pth", "no/file.pth"],
)
def test_initial_weights_that_cannot_be_had_are_refused_at_once(tiny_config, offline, checkpoint):
    config = tiny_config({"model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": checkpoint}})
    start = time.monotonic()
    line = raised(build_network, MMDET, config, 0, None)
    assert time.monotonic() - start < 10
    assert line.startswith("task.model: the initial weights of the config cannot be had (")
    assert "Give task.model.checkpoint, or switch them off: task.model.pretrained=false." in line


def test_initial_weights_can_be_switched_off_as_the_line_says(mmdet, tiny_config, offline):
    missing = {"model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}}
    config, plain = tiny_config(missing), {"model.backbone.init_cfg": None}
    assert open_config(mmdet, SHIPPED, options=missing).model.backbone.init_cfg == missing["model.backbone.init_cfg"]
    config.model = open_config(mmdet, SHIPPED, options={"model": config.model.to_dict()}, pretrained=False).model
    assert torch.equal(weights(config), weights(tiny_config(plain)))


def test_weights_of_a_checkpoint_need_no_initial_ones(tiny_config, tmp_path, offline):
    trained = build_network(MMDET, tiny_config(), 1, None).state_dict()
    torch.save(trained, tmp_path / "trained.pth")
    missing = {"model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}}
    network = build_network(MMDET, tiny_config(missing), 0, str(tmp_path / "trained.pth"))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in network.state_dict().items())


def test_building_prints_nothing(tiny_config, capfd):
    build_network(MMDET, tiny_config(), 0, None)
    assert capfd.readouterr().out == ""


def test_silence_keeps_prints_and_the_log_from_the_terminal(capsys):
    logger = MMLogger.get_current_instance()
    terminal = [handler for handler in logger.handlers if not isinstance(handler, logging.FileHandler)]
    levels = [handler.level for handler in terminal]
    with silence():
        print("something")
        logger.info("something else")
        assert all(handler.level == logging.WARNING for handler in terminal)
    assert capsys.readouterr().out == ""
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"
    assert [handler.level for handler in terminal] == levels


def test_silence_ends_with_an_error(capsys):
    levels = [handler.level for handler in MMLogger.get_current_instance().handlers]
    with pytest.raises(ValueError, match="inside"), silence():
        raise ValueError("inside")
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"
    assert [handler.level for handler in MMLogger.get_current_instance().handlers] == levels


def test_an_error_in_one_line_has_its_kind_and_all_its_words():
    assert one_line(ValueError("first\n  second\tthird")) == "ValueError: first second third"


def test_an_error_in_one_line_has_no_addresses():
    error = OSError("cannot identify image file <_io.BytesIO object at 0x7ffadb5b29d0>")
    assert one_line(error) == "OSError: cannot identify image file"


@pytest.mark.parametrize("library", [MMDET, MMSEG])
def test_a_library_knows_its_registries_and_its_scope(mmdet, library):
    pytest.importorskip(library.name)
    assert library.registry("MODELS").scope == library.name
    with library.scope():
        assert DefaultScope.get_current_instance().scope_name == library.name
