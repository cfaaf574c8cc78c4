"""A tiny detector on eight scenes of digits, for the tests of what mmdet and mmseg share."""

import copy
import gc
import warnings

import pytest
import torch

# All that the tests build on, so that the shipped config can be tuned without them.
TINY = {
    "model.backbone": {
        "depth": 18,
        "base_channels": 8,
        "stem_channels": 8,
        "num_stages": 3,
        "strides": [1, 2, 2],
        "dilations": [1, 1, 1],
        "out_indices": [1, 2],
    },
    "model.neck": {"in_channels": [16, 32], "out_channels": 16, "num_outs": 2},
    "model.bbox_head": {
        "in_channels": 16,
        "feat_channels": 16,
        "stacked_convs": 1,
        "strides": [8, 16],
        "regress_ranges": [[-1, 36], [36, 1e8]],
        "norm_cfg": {"type": "GN", "num_groups": 4},
    },
    "train_cfg": {"_delete_": True, "type": "IterBasedTrainLoop", "max_iters": 4},
    "optim_wrapper": {
        "_delete_": True,
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 2e-3, "weight_decay": 0.05},
        "clip_grad": {"max_norm": 10.0},
    },
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "end": 2},
        {"type": "CosineAnnealingLR", "T_max": 2, "by_epoch": False, "begin": 2, "end": 4, "eta_min": 1e-5},
    ],
    "train_dataloader.batch_size": 2,
    "train_dataloader.num_workers": 0,
    # mmengine collects all garbage of the process before it serialises a data set, which takes half a second.
    "train_dataloader.dataset.serialize_data": False,
    "val_dataloader.dataset.serialize_data": False,
    "test_dataloader.dataset.serialize_data": False,
}


@pytest.fixture(scope="session")
def mmdet():
    """Return mmdet as pdiff has it, imported."""
    pytest.importorskip("mmdet")
    from pdiff_plugins.openmmlab.libraries import MMDET

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv warns about its own imports
        MMDET.load()
        torch.meshgrid(torch.zeros(1), torch.zeros(1))  # torch warns of the way in which mmdet calls it, once
    gc.freeze()  # see `pytest_collection_finish`
    return MMDET


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Return the folder of a few scenes; not to be changed."""
    from pdiff_plugins.openmmlab.scenes import compose_scenes

    return compose_scenes(train=8, select=4, test=4, size=64, cache=str(tmp_path_factory.mktemp("scenes")))


@pytest.fixture(scope="session")
def tiny_config(mmdet, scenes):
    """Return a function from options, with dots in their names, to the shipped config made tiny."""
    from pdiff_plugins.openmmlab.data import use_root
    from pdiff_plugins.openmmlab.libraries import open_config

    def config(options: dict | None = None):
        values = open_config(mmdet, "pdiff_plugins.detection::fcos_r18_digits", options=copy.deepcopy(TINY))
        for name, value in copy.deepcopy(options or {}).items():
            values.merge_from_dict({name: value})
        use_root(values, scenes)
        return values

    return config


@pytest.fixture(scope="session")
def splits(mmdet, tiny_config):
    """Return the splits of the tiny config; not to be changed."""
    from pdiff_plugins.openmmlab.data import build_splits

    return build_splits(mmdet, tiny_config(), 0)


@pytest.fixture(scope="session")
def tiny_task(mmdet, tiny_config, splits):
    """Return a function from options to a task with a new network, the same each time."""
    from pdiff_plugins.openmmlab.libraries import build_network

    from pdiff import Metric, Task

    def task(options: dict | None = None, seed: int = 0) -> Task:
        network = build_network(mmdet, tiny_config(options), seed, None)
        network.dataset_meta = dict(splits["train"].dataset.metainfo)
        return Task(network, splits, Metric("AP"), ["bbox_head"])

    return task
