"""What the simulated GPU refuses, what it counts, and that nothing of it is left behind."""

import copy
import io
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pdiff.task.recording import Forgotten
from pdiff.testing.simulated_cuda import simulated_cuda

GENERATOR, AVAILABLE, CLONE = torch.Generator, torch.cuda.is_available, torch.UntypedStorage.clone


@pytest.fixture
def gpu():
    """A simulated GPU, which has counted nothing yet."""
    with simulated_cuda() as gpu:
        yield gpu


def network() -> nn.Module:
    """Return a small network that normalises and drops out."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 4))


def trained(device: str, **settings) -> dict[str, torch.Tensor]:
    """Return the weights of a network after a few steps on a device."""
    model = network().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **settings)
    inputs, labels = torch.randn(32, 8).to(device), torch.randint(0, 4, (32,)).to(device)
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def on_gpu(*shape: int) -> torch.Tensor:
    """Return random numbers on the GPU."""
    return torch.randn(*shape, device="cuda")


def test_devices_are_told_as_torch_tells_them(gpu):
    here, there = torch.zeros(3), torch.zeros(3, device="cuda")
    assert (here.device.type, there.device) == ("cpu", torch.device("cuda", 0))
    assert there.is_cuda
    assert not there.is_cpu
    assert there.get_device() == 0
    assert not here.is_cuda
    assert there[1:].view(-1, 1).device == there.device == torch.zeros_like(there).device == there.new_zeros(2).device
    assert torch.tensor([1.0], device=0).is_cuda
    assert torch.as_tensor(np.ones(2), device="cuda").is_cuda
    assert not there.cpu().is_cuda
    assert here.to(there).is_cuda
    assert here.cuda().is_cuda
    assert not here.is_cuda
    assert not torch.zeros_like(there, device="cpu").is_cuda
    with torch.device("cuda"):
        assert torch.ones(2).is_cuda


@pytest.mark.parametrize(
    "mix",
    [
        lambda: on_gpu(3) + torch.ones(3),
        lambda: nn.Linear(3, 2).to("cuda")(torch.ones(1, 3)),
        lambda: nn.Linear(3, 2)(on_gpu(1, 3)),
        lambda: torch.cat([on_gpu(3), torch.ones(3)]),
        lambda: torch.stack([on_gpu(1)[0], torch.tensor(1.0)]),
        lambda: torch.equal(on_gpu(3), torch.ones(3)),
        lambda: functional.cross_entropy(on_gpu(2, 3), torch.tensor([0, 1])),
        lambda: on_gpu(2).index_put_((torch.tensor([0, 1], device="cuda"),), torch.ones(2)),
        lambda: torch.add(torch.ones(3), on_gpu(3), out=torch.empty(3)),
        lambda: functional.mse_loss(nn.Linear(3, 2).to("cuda")(on_gpu(1, 3)), torch.ones(1, 2)).backward(),
    ],
)
def test_tensors_of_both_sides_in_one_operation_raise(gpu, mix):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix()


def test_indices_of_the_gpu_into_a_tensor_of_the_host_raise(gpu):
    with pytest.raises(RuntimeError, match="indices should be either on cpu"):
        torch.ones(3)[torch.tensor([0], device="cuda")]


def test_numbers_of_the_host_go_with_the_gpu(gpu):
    assert (on_gpu(3) * torch.tensor(2.0)).is_cuda
    assert (torch.tensor(2.0) - on_gpu(3)).is_cuda
    assert on_gpu(3)[torch.tensor([0, 2])].is_cuda
    assert gpu.copies_to_device == 1


@pytest.mark.parametrize(("device", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_generator_of_the_other_side_raises(gpu, device, other):
    own = torch.Generator(device).manual_seed(0)
    assert own.device.type == device
    assert torch.randn(3, generator=own, device=device).device.type == device
    with pytest.raises(RuntimeError, match=f"Expected a '{other}' device type for generator but found '{device}'"):
        torch.randn(3, generator=own, device=other)
    with pytest.raises(RuntimeError, match="for generator"):
        torch.empty(3, device=other).normal_(generator=own)


def test_an_array_of_the_gpu_raises(gpu):
    for make in (torch.Tensor.numpy, np.asarray):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            make(on_gpu(3))
    assert on_gpu(3).cpu().numpy().shape == (3,)


def test_a_second_gpu_is_not_there(gpu):
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(1, device="cuda:1")


@pytest.mark.parametrize(
    ("work", "to_device", "to_host", "syncs"),
    [
        (lambda x: x.sum(), 0, 0, 0),
        (lambda x: x.sum().item(), 0, 1, 1),
        (lambda x: float(x[0]) if x.sum() == 0 else None, 0, 2, 2),
        (lambda x: x.tolist(), 0, 1, 1),
        (lambda x: x.cpu(), 0, 1, 1),
        (lambda x: torch.empty(4).copy_(x), 0, 1, 1),
        (lambda x: x.copy_(torch.ones(4)), 1, 0, 1),
        (lambda x: torch.ones(4).to("cuda", non_blocking=True), 1, 0, 1),
        (lambda x: torch.ones(4).pin_memory().to("cuda", non_blocking=True), 1, 0, 0),
        (lambda x: torch.randperm(4, pin_memory=True).to("cuda", non_blocking=True), 1, 0, 0),
        (lambda x: x.to("cpu", non_blocking=True), 0, 1, 0),
        (lambda x: torch.tensor([1.0, 2.0], device="cuda"), 1, 0, 1),
        (lambda x: torch.arange(4, device="cuda"), 0, 0, 0),
        (lambda x: x[x > 0], 0, 0, 1),
        (lambda x: x.masked_fill(x > 0, 0), 0, 0, 0),
        (lambda x: x[1:3] * x[0], 0, 0, 0),
        (lambda x: x.nonzero(), 0, 0, 1),
        (lambda x: x.unique(), 0, 0, 1),
        (lambda x: torch.equal(x, x), 0, 1, 1),
        (lambda x: torch.allclose(x, x), 0, 1, 1),
        (lambda x: torch.cuda.synchronize(), 0, 0, 1),
        (lambda x: x.clone().to(torch.float64), 0, 0, 0),
    ],
)
def test_copies_and_waits_are_counted(gpu, work, to_device, to_host, syncs):
    values = torch.zeros(4, device="cuda")
    gpu.reset()
    work(values)
    assert (gpu.copies_to_device, gpu.copies_to_host, gpu.syncs) == (to_device, to_host, syncs)


def test_each_batch_is_one_copy(gpu):
    model = network().to("cuda").eval()
    gpu.reset()
    for batch in torch.randn(6, 2, 8):
        model(batch.to("cuda"))
    assert (gpu.copies_to_device, gpu.copies_to_host) == (6, 0)


def test_the_line_that_waits_is_told(gpu):
    on_gpu(1).item()
    (where,) = gpu.places
    assert where.startswith(f"{__file__}:")


def test_a_wait_inside_a_hot_block_raises(gpu):
    values = on_gpu(3)
    with gpu.no_sync("training step"):
        values.sum()
        with pytest.raises(AssertionError, match="training step: the host waits for the GPU .* at .*test_simulated"):
            values.sum().item()
    values.sum().item()

    class Work:
        def step(self):
            return values.sum().item()

    with gpu.hot(Work, "step"), pytest.raises(AssertionError, match="step: the host waits"):
        Work().step()
    assert Work().step() is not None


@pytest.mark.parametrize("settings", [{"fused": True}, {"foreach": True}, {}])
def test_training_ends_with_the_bytes_of_the_cpu(gpu, settings):
    there = trained("cuda", **settings)
    here = trained("cpu", **settings)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_a_gradient_crosses_back(gpu):
    weight = torch.ones(3, requires_grad=True)
    (weight.to("cuda") * on_gpu(3)).sum().backward()
    assert not weight.grad.is_cuda


def test_what_shares_memory_lies_on_the_same_side(gpu):
    model = network().to("cuda")
    assert all(tensor.is_cuda for tensor in copy.deepcopy(model).state_dict().values())
    assert on_gpu(4).untyped_storage().clone().nbytes() == 16
    assert torch.func.vmap(lambda row: model[0](row).sum())(on_gpu(3, 8)).is_cuda
    assert Forgotten(on_gpu(2)).device.type == "cuda"
    with torch.autocast("cuda", torch.bfloat16):
        assert model(on_gpu(2, 8)).dtype == torch.bfloat16


def test_files_keep_the_side_unless_told_otherwise(gpu):
    file = io.BytesIO()
    torch.save({"here": torch.ones(2), "there": torch.ones(2, device="cuda")}, file)
    for location, types in ((None, ["cpu", "cuda"]), ("cpu", ["cpu", "cpu"]), ("cuda", ["cuda", "cuda"])):
        file.seek(0)
        assert [t.device.type for t in torch.load(file, map_location=location).values()] == types


def test_threads_that_are_started_inside_see_the_gpu(gpu):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(2).to("cuda").device.type))
    thread.start()
    thread.join()
    assert found == ["cuda"]


def test_nothing_is_left_behind_not_even_after_an_error():
    kept = []

    def fail() -> None:
        with simulated_cuda() as gpu:
            kept.extend([gpu, on_gpu(3)])
            assert torch.cuda.is_available()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    gpu, tensor = kept
    assert gpu.tags == {}
    assert tensor.device.type == "cpu"
    assert (tensor + torch.ones(3)).shape == (3,)
    assert (torch.Generator, torch.cuda.is_available, torch.UntypedStorage.clone) == (GENERATOR, AVAILABLE, CLONE)


def test_a_block_inside_another_gets_the_same_gpu_and_one_behind_another_a_new_one():
    with simulated_cuda() as first:
        with simulated_cuda() as inner:
            assert inner is first
            assert on_gpu(1).is_cuda
        assert on_gpu(1).is_cuda
        on_gpu(1).item()
    with simulated_cuda() as second:
        assert second is not first
        assert second.syncs == 0
        assert on_gpu(1).is_cuda
