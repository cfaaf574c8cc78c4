"""A tiny detector on tiny scenes of digits, and a finished run of it."""

import copy
import importlib.util
import warnings
from pathlib import Path

import pytest
from pdiff_plugins.openmmlab.libraries import MMDET

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.stages.pipeline import run_pipeline

ROOT = Path(__file__).parents[3]
# Without large augmentations and with all detections kept, it finds some digits after forty steps.
TRAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackDetInputs"},
]
TEST = {"1": {"scale": [64, 64]}}
TINY = {
    "plugin": "detection",
    "device": "cpu",
    "select": "head",
    "task": {
        "model": {
            "config": "pdiff_plugins.detection::fcos_r18_digits",
            "options": {
                "model": {
                    "backbone": {"base_channels": 8, "stem_channels": 8},
                    "neck": {"in_channels": [16, 32], "out_channels": 16},
                    "bbox_head": {"in_channels": 16, "feat_channels": 16, "norm_cfg": {"num_groups": 4}},
                    "test_cfg": {"score_thr": 0.0},
                },
                "train_cfg": {"max_iters": 40, "val_interval": 40},
                "param_scheduler": [],
                "optim_wrapper": {"optimizer": {"lr": 0.01}},
                # mmengine collects all garbage of the process before it serialises a data set, which takes its time.
                **{
                    f"{split}_dataloader": {"batch_size": 4, "dataset": {"serialize_data": False, "pipeline": pipeline}}
                    for split, pipeline in (("train", TRAIN), ("val", TEST), ("test", TEST))
                },
            },
        },
        "data": {"scenes": {"train": 16, "select": 6, "test": 8, "size": 64}},
        "score_threshold": 0.05,
    },
    "collect": {
        "train": {"enabled": True},
        "finetune": {"steps": 6, "optimizer": {"type": "AdamW", "lr": 0.003}},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "denoiser_training": {"steps": 20}},
    "generate": {"num": 4, "path": 1},
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
    """Load mmdet; its imports warn about what it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MMDET.load()
    return MMDET


@pytest.fixture
def tiny_detector() -> dict:
    """The values of the tiny config, to be changed at will."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def detected(tmp_path_factory, own_cache, library) -> RunDirectory:
    """A finished tiny run; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "detected")
    run_pipeline(resolve(copy.deepcopy(TINY)), directory, gates=False)
    return directory


@pytest.fixture(scope="session")
def load_tool():
    """Return a function that loads one of the tools as a module."""

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
