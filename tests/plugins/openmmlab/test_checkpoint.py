"""Checkpoints of OpenMMLab's libraries: read without running code, refused by name when unfit, written for others."""

import copy
import gc
import http.server
import os
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

from pdiff_plugins.openmmlab.checkpoint import export_checkpoint, fetch, load_weights, plain

from pdiff.engine.runner import QuietRunner
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors, sha256, write_tensors

NAME = "bbox_head.conv_cls.weight"


def copies(model) -> dict[str, torch.Tensor]:
    """Return a copy of a network's state dict."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def raised(function, *args) -> str:
    """Return the line of the error that a call ends with."""
    with pytest.raises(PdiffError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def model(tiny_task):
    """Return a network."""
    return tiny_task().model


@pytest.fixture(scope="module")
def trained(tiny_task):
    """Return the weights of another network; not to be changed."""
    return copies(tiny_task(seed=1).model)


@pytest.fixture
def runner(tiny_task, splits, tmp_path):
    """Return mmengine's Runner behind two steps of training."""
    runner = QuietRunner(
        name="saved",
        device=torch.device("cpu"),
        model=tiny_task(seed=1).model,
        work_dir=str(tmp_path / "logs"),
        train_dataloader=splits["train"].batches(),
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 2},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}, "clip_grad": {"max_norm": 1.0}},
        param_scheduler=[{"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 2}],
        default_hooks={"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 1}},
        log_processor={"by_epoch": False},
        default_scope="mmdet",
    )
    runner.train()
    runner.close_log()
    return runner


def test_a_checkpoint_that_mmengine_wrote_is_read(runner, model, tmp_path):
    runner.message_hub.update_info("best_score", np.float64(0.5))
    runner.message_hub.update_info("numbers", np.arange(3))
    runner.save_checkpoint(str(tmp_path), "saved.pth")
    content = torch.load(tmp_path / "saved.pth", weights_only=False)
    assert {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers"} <= content.keys()
    assert type(content["message_hub"]["log_scalars"]["train/loss"]).__name__ == "HistoryBuffer"
    load_weights(model, str(tmp_path / "saved.pth"))
    assert equal(model.state_dict(), runner.model.state_dict())


NUMBERS = (np.float64(0.5), np.float32(0.5), np.float16(0.5), np.int64(3), np.int32(3), np.bool_(True))
ARRAYS = (np.zeros((2, 3)), np.arange(3), np.zeros(3, np.uint8), np.array(["car"]))


@pytest.mark.parametrize("value", [*NUMBERS, *ARRAYS], ids=repr)
def test_numbers_of_numpy_in_a_checkpoint_do_not_hinder(model, trained, tmp_path, value):
    # mmengine's CheckpointHook keeps the best score as the metric returns it.
    content = {"state_dict": trained, "message_hub": {"runtime_info": {"best_score": value}}}
    torch.save(content, tmp_path / "weights.pth")
    load_weights(model, str(tmp_path / "weights.pth"))
    assert equal(model.state_dict(), trained)


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_a_plain_state_dict_is_read(model, trained, tmp_path, nested):
    torch.save({nested: trained, "epoch": 3} if nested else trained, tmp_path / "weights.pth")
    load_weights(model, str(tmp_path / "weights.pth"))
    assert equal(model.state_dict(), trained)


def test_safetensors_are_read(model, trained, tmp_path):
    write_tensors(tmp_path / "weights.safetensors", trained)
    load_weights(model, str(tmp_path / "weights.safetensors"))
    assert equal(model.state_dict(), trained)


def misfit(model, state, folder) -> str:
    """Return the error line for weights that do not fit, which must leave the network as it is."""
    before, path = copies(model), str(folder / "weights.pth")
    torch.save(state, path)
    line = raised(load_weights, model, path)
    assert equal(model.state_dict(), before)
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def test_a_missing_tensor_is_named(model, trained, tmp_path):
    state = {name: tensor for name, tensor in trained.items() if name != NAME}
    assert misfit(model, state, tmp_path).startswith(f"lacks '{NAME}'; it has '")


def test_an_unknown_tensor_is_named(model, trained, tmp_path):
    state = {**trained, "mask_head.weight": torch.zeros(1), "mask_head.bias": torch.zeros(1)}
    line = "holds 'mask_head.weight', 'mask_head.bias', which the network does not have."
    assert misfit(model, state, tmp_path) == f"{line} Give a file of this network, or the network of this file."


def test_a_tensor_of_another_shape_is_named(model, trained, tmp_path):
    state = {**trained, NAME: torch.zeros(80, 16, 3, 3)}
    line = f"'{NAME}' has the shape (80, 16, 3, 3), expected (10, 16, 3, 3) as the network has it."
    assert misfit(model, state, tmp_path).startswith(line)


def test_what_libraries_leave_in_checkpoints_is_skipped_and_said(model, trained, tmp_path, caplog):
    caplog.set_level("INFO", "pdiff")
    state = {f"module.{name}": tensor for name, tensor in trained.items()}
    state |= {"data_preprocessor.mean": torch.zeros(3, 1, 1), "ema_backbone_conv1_weight": torch.zeros(1)}
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "weights.pth")
    load_weights(model, str(tmp_path / "weights.pth"))
    assert equal(model.state_dict(), trained)
    assert "'data_preprocessor.mean', 'ema_backbone_conv1_weight' left out" in caplog.text


def test_names_are_read_as_the_settings_say(model, trained, tmp_path):
    state = {f"student.{name.replace('backbone', 'body')}": tensor for name, tensor in trained.items()}
    torch.save({"a": {"b": state}, "teacher": trained}, tmp_path / "weights.pth")
    load_weights(model, str(tmp_path / "weights.pth"), "a.b", "student.", {"^body": "backbone"})
    assert equal(model.state_dict(), trained)


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("key", ["meta", "message_hub", "state_dict"])
def test_a_checkpoint_that_runs_code_is_refused_and_runs_none(model, trained, tmp_path, key):
    trap, path = tmp_path / "sprung", tmp_path / "trap.pth"
    content = {"meta": {}, "state_dict": dict(trained), "message_hub": {}}
    content[key]["trap"] = Trap(trap)
    torch.save(content, path)
    line = f"{path}: holds objects that are no tensors (posix.mkdir), and reading these could run code."
    assert raised(load_weights, model, str(path)).startswith(line)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # so the trap does work


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors"])
def test_a_file_that_is_not_there_is_named(model, tmp_path, name):
    path = str(tmp_path / name)
    line = raised(load_weights, model, path)
    assert line.startswith(f"{path}: cannot be read (")
    assert "It is missing" in line


def test_a_file_that_is_cut_off_is_named(model, trained, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(trained, path)
    path.write_bytes(path.read_bytes()[:1000])
    assert raised(load_weights, model, str(path)).startswith(f"{path}: ")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Make a new folder the one that torch downloads to, and ask no proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served(trained, tmp_path):
    """Return the address of a server with the file `weights.pth`, and the paths that it is asked for."""
    torch.save(trained, tmp_path / "weights.pth")
    content, asked = (tmp_path / "weights.pth").read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers with the file, or with half of it."""

        def do_GET(self):
            asked.append(self.path)
            if "weights" not in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if "half" in self.path else content)

        def log_message(self, *args):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_checkpoint_at_an_address_is_downloaded_once(model, trained, hub, served):
    address, asked = served
    for _ in range(2):
        load_weights(model, f"{address}/weights.pth")
        assert equal(model.state_dict(), trained)
    assert asked == ["/weights.pth"]
    assert [path.name for path in hub.rglob("*.pth")] == ["weights.pth"]


def test_an_address_without_the_file_is_refused(hub, served):
    address = f"{served[0]}/nothing.pth"
    line = f"task.model.checkpoint: {address} cannot be fetched (HTTP Error 404: Not Found)."
    assert raised(fetch, address) == f"{line} Download it elsewhere and give the file."
    assert list(hub.rglob("*.p*")) == []


def test_an_address_that_cannot_be_reached_is_refused(hub):
    address = "http://127.0.0.1:9/weights.pth"
    line = raised(fetch, address)
    assert line.startswith(f"task.model.checkpoint: {address} cannot be fetched (")
    assert line.endswith("). Download it elsewhere and give the file.")
    assert list(hub.rglob("*.p*")) == []


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # torch.hub leaves it to the garbage collector
def test_a_download_that_breaks_off_is_refused_and_not_kept(hub, served, tmp_path):
    checksum = sha256(tmp_path / "weights.pth")[:8]  # as in the names of the checkpoints that OpenMMLab publishes
    address, _ = served
    line = raised(fetch, f"{address}/half/weights-{checksum}.pth")
    assert "cannot be fetched" in line
    assert list(hub.rglob("*.p*")) == []
    assert fetch(f"{address}/weights-{checksum}.pth").is_file()
    gc.collect()


def test_files_of_the_same_name_at_two_addresses_are_not_taken_for_each_other(hub, served):
    address, asked = served
    assert fetch(f"{address}/one/weights.pth") != fetch(f"{address}/other/weights.pth")
    assert asked == ["/one/weights.pth", "/other/weights.pth"]


@pytest.fixture
def exported(tiny_task, tmp_path):
    """Return a network and the checkpoint that was written of it."""
    model = tiny_task({"model.test_cfg.score_thr": 0.0}, seed=1).model.eval()
    export_checkpoint(model, tmp_path / "new" / "detector.pth")
    return model, tmp_path / "new" / "detector.pth"


def test_an_exported_checkpoint_is_read_without_trust(exported):
    model, path = exported
    content = torch.load(path, weights_only=True)
    assert equal(content["state_dict"], model.state_dict())
    assert content["meta"]["dataset_meta"]["classes"] == tuple("0123456789")
    assert content["meta"]["experiment_name"] == "detector"
    assert equal(Reader(model).read(path), model.state_dict())
    assert sorted(file.name for file in path.parent.iterdir()) == ["detector.pth", "detector.py"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")  # mmdet's own
def test_an_exported_detector_predicts_the_same_in_mmdet(exported, splits, mmdet):
    from mmdet.apis import inference_detector, init_detector

    model, path = exported
    loaded = init_detector(str(path.with_suffix(".py")), str(path), device="cpu")
    assert loaded.dataset_meta["classes"] == model.dataset_meta["classes"]
    dataset = splits["test"].dataset
    for index in range(2):
        with torch.no_grad():
            sample = dataset[index]
            batch = {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}
            expected = model.test_step(batch)[0].pred_instances
        found = inference_detector(loaded, dataset.get_data_info(index)["img_path"]).pred_instances
        assert len(found.scores) > 0
        for key in ("bboxes", "scores", "labels"):
            assert torch.equal(found[key], expected[key])


def test_an_export_changes_nothing_in_the_network(tiny_task, tmp_path):
    model = tiny_task().model
    before, config, meta = copies(model), copy.deepcopy(model.cfg.to_dict()), copy.deepcopy(model.dataset_meta)
    export_checkpoint(model, tmp_path / "detector.pth")
    assert equal(model.state_dict(), before)
    assert (model.cfg.to_dict(), model.dataset_meta) == (config, meta)


def test_an_export_to_safetensors_is_the_state_dict_alone(model, tmp_path):
    export_checkpoint(model, tmp_path / "detector.safetensors")
    assert equal(read_tensors(tmp_path / "detector.safetensors"), model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["detector.safetensors"]


@pytest.mark.parametrize("name", ["detector.pt", "detector.py", "detector"])
def test_an_export_to_an_unknown_format_is_refused(model, tmp_path, name):
    line = f"--output: got '{tmp_path / name}', expected a name that ends in .pth, .safetensors."
    assert raised(export_checkpoint, model, tmp_path / name) == line
    assert list(tmp_path.iterdir()) == []


def test_plain_values_are_nested_as_before():
    value = {"classes": ("a", "b"), "palette": [np.array([1, 2]), (np.int64(3), 0.5)], 3: None}
    assert plain(value) == {"classes": ("a", "b"), "palette": [[1, 2], (3, 0.5)], "3": None}
