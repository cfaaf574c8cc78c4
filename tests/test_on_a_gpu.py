"""What only a GPU can say: that nothing waits for it, and that it repeats itself. On the CPU the same code runs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.model import BaseModel
from torch import nn

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.exact import exact
from pdiff.runtime.seeding import generator
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Replay
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout

STEPS, WARM = 8, 2  # steps of a training, of which the first may wait
PRESETS = yaml.safe_load((Path(__file__).parents[1] / "tools" / "bench" / "tiny_engines.yaml").read_text())


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request) -> str:
    """The device of a test: the CPU, and a GPU where the tests that need one are run."""
    return request.param


class Watch:
    """Lets torch raise an error where something waits for the GPU.

    Attributes:
        on: whether it does now.
        blocks: how often it was begun.
    """

    def __init__(self, device: str):
        self.device, self.on, self.blocks = device, False, 0

    def set(self, on: bool) -> None:
        """Begin or end."""
        self.on, self.blocks = on, self.blocks + on
        if self.device == "cuda":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")  # which torch says once
                torch.cuda.set_sync_debug_mode("error" if on else "default")

    @contextmanager
    def over(self) -> Iterator[None]:
        """Watch a block."""
        self.set(True)
        try:
            yield
        finally:
            self.set(False)


@pytest.fixture
def watch(device) -> Iterator[Watch]:
    """What raises an error where something waits for the GPU; off at the end of the test."""
    found = Watch(device)
    yield found
    found.set(False)


def fitted(preset: str, device: str, **training) -> ParameterDiffusion:
    """Return an engine of a preset, made tiny and fitted."""
    steps = {"generator_training": {"steps": STEPS, "batch_size": 4, **training}}
    if preset != "fast":
        steps["autoencoder_training"] = {"steps": STEPS, "batch_size": 4, **training}
    engine = ParameterDiffusion({"preset": preset, **PRESETS[preset], **steps}, device=device)
    vectors = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    engine.fit(vectors, Layout.of({"weight": torch.empty(8, 7), "bias": torch.empty(8)}))
    return engine


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_training_step_waits_for_the_gpu(monkeypatch, device, watch, preset, amp):
    take = BaseModel.train_step

    def watched(model, data, optim_wrapper):
        if data["step"] in (WARM, STEPS - 1):  # from here to the last step all is watched, what lies between steps too
            watch.set(data["step"] == WARM)
        return take(model, data, optim_wrapper)

    monkeypatch.setattr(BaseModel, "train_step", watched)
    fitted(preset, device, amp=amp)
    assert watch.blocks == (1 if preset == "fast" else 2)
    assert not watch.on


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "DPM-Solver++"])
def test_no_step_of_a_sampler_waits_for_the_gpu(device, watch, name):
    engine, rng = fitted("fast", device), generator(0, "sample", device=torch.device(device))
    with torch.no_grad():
        way = engine.generator.draw(torch.Size([4, 4]), rng, sampler={"type": name, "steps": STEPS})
        first = [next(way) for _ in range(WARM)]
        with watch.over():
            rest = list(way)
    assert len(first) + len(rest) == STEPS
    assert torch.isfinite(rest[-1][0]).all()


def test_two_collections_are_equal_byte_for_byte(tmp_path, tiny, device):
    found = []
    for number in range(2):
        directory = RunDirectory(tmp_path / str(number))
        run_pipeline(resolve({**tiny, "device": device}), directory, ["collect"], gates=False)
        found.append((directory.folder("collect") / "vectors.f32").read_bytes())
    assert found[0] == found[1]


@torch.no_grad()
def test_replay_behind_a_transposed_convolution_gives_the_bytes_of_one_by_one(device):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.ConvTranspose2d(8, 8, 4, 2), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
    network, batch = nn.Sequential(*layers).eval(), torch.randn(4, 3, 32, 32)
    state, names = network.state_dict(), ["3.weight", "3.bias"]
    layout = Layout.of(state, names)
    vectors = layout.flatten(state) + 0.1 * torch.randn(5, layout.size)
    network, batch = network.to(device), batch.to(device)
    candidates = Candidates(vectors.to(device), layout, LoadParams().load_params)
    with exact(torch.device(device)):
        together = list(Replay(network, candidates)(batch))
        for index, result in enumerate(together):
            candidates.load(network, index)
            assert torch.equal(network(batch).view(torch.int32), result.view(torch.int32))
    assert not torch.equal(together[0], together[1])
