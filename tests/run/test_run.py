"""What a run is made of: its task, and the parts that its plugin registers."""

import pytest

from pdiff.run.config import load_config
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline

PLUGIN = """
import torch
from torch import nn
from pdiff import DENOISERS, SOURCES, Evaluation, Metric, Snapshot, Task, hookimpl


@DENOISERS.register_module(name="line of NAME")
class Line(nn.Module):
    def __init__(self, size, gain: float):
        super().__init__()
        self.gain, self.layer = gain, nn.Linear(size, size)

    def forward(self, z, t):
        return self.gain * self.layer(z)


@SOURCES.register_module(name="zeros of NAME")
def zeros(pool, num: int):
    return torch.zeros(num, pool.layout.size)


@hookimpl
def build(cfg):
    torch.manual_seed(0)
    return Task(nn.Linear(2, 2), {"select": 0, "test": 0}, Metric("accuracy"))


@hookimpl
def select_params():
    return ["weight"]


@hookimpl
def collect():
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        yield Snapshot({"weight": torch.randn(2, 2, generator=rng)}, {})


@hookimpl
def evaluate(candidates):
    for candidate in candidates:
        yield Evaluation(float(candidate["weight"].abs().sum() == 0), candidate["weight"].flatten() > 0)
"""
SOURCES = ("codec", "soup", "soup16", "ensemble", "interpolation", "gaussian", "swag", "latent_gaussian", "noise05")
SOURCES += ("noise15",)


@pytest.fixture
def config(request, tmp_path):
    """The config of a plugin by path that registers a denoiser and a source at its top, and uses both."""
    name = request.node.name
    (tmp_path / "mine.py").write_text(PLUGIN.replace("NAME", name))
    options = {
        "engine.denoiser": {"type": f"line of {name}", "gain": 0.5},
        "engine.generator_training.steps": 3,
        "generate.num": 3,
        "evaluate.sources": {**dict.fromkeys(SOURCES), "zeros": {"type": f"zeros of {name}", "num": 2}},
        "evaluate.train": [],
    }
    return load_config(str(tmp_path / "mine.py"), None, {}, options)


def test_plugin_by_path_that_registers_parts_runs_with_them_and_runs_again(config, tmp_path):
    for number in range(2):
        directory = RunDirectory(tmp_path / str(number))
        run_pipeline(config, directory, gates=False)
        sources = read_json(directory.folder("compare") / "summary.json")["sources"]
        assert {name: row["n"] for name, row in sources.items()} == {"trained": 5, "generated": 3, "zeros": 2}
        assert sources["zeros"]["mean"] == 1
        assert type(Run(config, directory).engine.generator.denoiser).__name__ == "Line"


def test_task_of_what_is_not_collected_is_refused_and_what_is_built_is_there(config, tmp_path):
    run = Run(config, RunDirectory(tmp_path / "run"))
    assert run.built.model is not None
    with pytest.raises(PdiffError, match=r"base\.safetensors: cannot be read"):
        run.task


def test_task_of_a_collected_run_has_the_frozen_network_in_it(config, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(config, directory, ORDER[:1], gates=False)
    run = Run(config, directory)
    assert run.task is run.built
