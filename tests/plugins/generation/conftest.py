"""A tiny UNet on digits of eight pixels, all that the tests build on."""

import copy

import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout

HOOK = load_plugin("generation").hook
TINY = {
    "plugin": "generation",
    "select": "head",
    "device": "cpu",
    "task": {
        "network": {
            "type": "unet",
            "options": {
                "block_out_channels": [8, 8],
                "down_block_types": ["DownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "UpBlock2D"],
                "layers_per_block": 1,
                "norm_num_groups": 4,
            },
        },
        "noise": {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "sampler": {"type": "DDIMScheduler", "steps": 3},
        "images": {"select": 10, "test": 20},
        "features": {"type": "classifier", "size": 6, "widths": [8], "epochs": 2},
        "loss_images": 32,
        "signature_images": 5,
        "groups": 4,
        "eval_batch": 12,
    },
    "collect": {"train": {"epochs": 1, "batch_size": 48}, "finetune": {"steps": 4, "batch_size": 48, "lr": 1e-2}},
    "engine": {"denoiser": {"width": 16, "depth": 1}, "generator_training": {"steps": 20}},
    "generate": {"num": 3, "path": 1},
    "evaluate": {"num": 2, "sources": {"soup16": {"members": 3}}},
}


@pytest.fixture
def tiny_generator() -> dict:
    """The values of the tiny config, to be changed at will."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def features_folder(tmp_path_factory):
    """A folder with the trained classifier of the tiny config; not to be changed."""
    folder = tmp_path_factory.mktemp("features")
    HOOK.build(cfg=resolve(TINY), folder=folder)
    return folder


@pytest.fixture
def build(features_folder):
    """Return a function that builds the task of a config."""
    return lambda config: HOOK.build(cfg=resolve(config), folder=features_folder)


@pytest.fixture
def candidates():
    """Return a function from a task to candidates with more and more noise in a selection."""

    def make(task, count: int = 3, select: str = "head") -> Candidates:
        layout = Layout.of(task.model.state_dict(), HOOK.select_params(task=task, cfg=resolve({"select": select})))
        noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
        base = layout.flatten(task.model.state_dict())
        return Candidates(base + 0.3 * torch.arange(count)[:, None] * noise, layout, HOOK.load_params)

    return make


@pytest.fixture(scope="session")
def finished_generator(tmp_path_factory) -> RunDirectory:
    """A finished run of the tiny config; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "generator")
    run_pipeline(resolve(TINY), directory, gates=False)
    return directory
