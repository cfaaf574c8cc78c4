"""A tiny segmentor on tiny scenes of digits, and a finished run of it."""

import copy
import importlib.util
import warnings
from pathlib import Path

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.storage import read_tensors
from pdiff.stages.pipeline import run_pipeline

ROOT = Path(__file__).parents[3]
# Smaller than the network's input, so that the batches have padding, whose labels are ignored.
TRAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomCrop", "crop_size": 56},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
TINY = {
    "plugin": "segmentation",
    "device": "cpu",
    "select": "head",
    "task": {
        "model": {
            "config": "pdiff_plugins.segmentation::fcn_r18_digits",
            "options": {
                "model": {
                    "data_preprocessor": {"size": [64, 64]},
                    # A UNet of two stages in the place of the ResNet with its neck: it costs next to nothing.
                    "neck": None,
                    "auxiliary_head": None,
                    "backbone": {
                        "_delete_": True,
                        "type": "UNet",
                        "base_channels": 4,
                        "num_stages": 2,
                        "strides": [1, 1],
                        "enc_num_convs": [1, 1],
                        "dec_num_convs": [1],
                        "downsamples": [True],
                        "enc_dilations": [1, 1],
                        "dec_dilations": [1],
                    },
                    "decode_head": {
                        "in_channels": 4,
                        "in_index": 1,
                        "channels": 4,
                        # So that not everything is background after ten steps.
                        "loss_decode": {"class_weight": [0.02] + [1.0] * 10},
                    },
                },
                "train_cfg": {"max_iters": 10, "val_interval": 10},
                "param_scheduler": [],
                "optim_wrapper": {"optimizer": {"lr": 0.03}},
                "train_dataloader": {
                    "batch_size": 4,
                    "dataset": {"serialize_data": False, "pipeline": TRAIN},
                },
                # mmengine collects all garbage of the process before it serialises a data set: half a second.
                "val_dataloader": {"batch_size": 2, "dataset": {"serialize_data": False}},
                "test_dataloader": {"batch_size": 2, "dataset": {"serialize_data": False}},
            },
        },
        "data": {"scenes": {"train": 8, "select": 4, "test": 4, "size": 64}},
        "signature_pixels": 1000,
    },
    "collect": {
        "train": {"enabled": True},
        "finetune": {"steps": 5, "optimizer": {"type": "AdamW", "lr": 0.03}},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "denoiser_training": {"steps": 20}},
    "generate": {"num": 3, "path": 1},
    "evaluate": {"num": 2, "sources": {"soup16": {"members": 3}}},
    "compare": {"resamples": 50},
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the scenes out of everybody's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def library():
    """Load mmseg; its imports warn about what it imports."""
    pytest.importorskip("mmseg")
    from pdiff_plugins.openmmlab.libraries import MMSEG

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MMSEG.load()
    return MMSEG


@pytest.fixture
def tiny_segmentor() -> dict:
    """The values of the tiny config, to be changed at will."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def segmented(tmp_path_factory, own_cache, library) -> RunDirectory:
    """A finished tiny run; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "segmented")
    run_pipeline(resolve(copy.deepcopy(TINY)), directory, gates=False)
    return directory


@pytest.fixture(scope="session")
def trained(segmented):
    """The task of the finished run, its network trained."""
    return Run(resolve(segmented.config()), segmented).task


@pytest.fixture
def segmentor(trained, segmented):
    """The task of the finished run; the network is as it was trained, whatever another test put into it."""
    trained.model.load_state_dict(read_tensors(segmented.base))
    return trained


@pytest.fixture(scope="session")
def load_tool():
    """Return a function that loads one of the tools as a module."""

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
