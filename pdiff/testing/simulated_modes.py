"""The two views of a simulated GPU: Python's, of devices by name, and torch's, operation by operation."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from pdiff.testing.simulated_tags import CPU, GPU, PINNED, SimulatedGPU, tensors, unwrapped

# The result's size is the data's, or the values are looked at on the host: the host waits.
WAITING = {
    f"aten::{name}"
    for name in (
        "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
        "unique_dim_consecutive", "bincount", "repeat_interleave", "_linalg_check_errors", "linalg_eig",
        "_linalg_eigvals", "linalg_lstsq",
    )
} | {"torchvision::nms"}  # fmt: skip
VALUES = {"aten::_local_scalar_dense", "aten::equal", "aten::allclose"}
INDEXING = {f"aten::{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")}
CROSSING = {"aten::copy_", "aten::_foreach_copy_", "aten::set_", "aten::_pack_padded_sequence"}
# Beside the operations value by value: a number on the host may go with tensors of the GPU.
WITH_NUMBERS = ("aten::_foreach_", "aten::where", "aten::masked_fill", "aten::fill", "aten::lerp", "aten::clamp")
CONVERTING = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
OWN_WAY = {torch.linalg.eigvalsh, torch.linalg.eigvals, torch.linalg.svdvals}
SAME = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


def as_device(value: Any) -> torch.device | None:
    """Return a device that is asked for, with its number.

    Raises:
        RuntimeError: there is no such GPU.
    """
    if value is None:
        return None
    device = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
    if device.type != "cuda":
        return device
    if device.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return GPU


@cache
def takes_numbers(func) -> bool:
    """Say whether an operation on the GPU takes tensors without dimensions from the host."""
    return torch.Tag.pointwise in func.tags or func._schema.name.startswith(WITH_NUMBERS)


class Here:
    """What is known of the running call: where a tensor lies that torch makes by itself."""

    def __init__(self):
        self.device = CPU

    @contextmanager
    def at(self, device: torch.device):
        """Let it be a device, inside the block."""
        before, self.device = self.device, device
        try:
            yield
        finally:
            self.device = before


class Crossing(torch.autograd.Function):
    """A copy to another device, whose gradient comes back to where the tensor lies."""

    @staticmethod
    def forward(ctx, tensor: Tensor, names: "Names", device: torch.device, settings: dict) -> Tensor:
        ctx.names, ctx.source, ctx.dtype = names, names.gpu.device_of(tensor), tensor.dtype
        return names.copy(tensor.detach(), device, settings)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if ctx.names.gpu.device_of(grad) != ctx.source:
            grad = ctx.names.copy(grad, ctx.source, {"dtype": ctx.dtype})
        return grad, None, None, None


class Names(TorchFunctionMode):
    """Python's view: devices that are asked for and told, and conversions."""

    def __init__(self, gpu: SimulatedGPU, here: Here):
        super().__init__()
        self.gpu, self.here = gpu, here

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in TOLD:
            return TOLD[func](self, *args, **kwargs)
        if func in OWN_WAY:
            return self.own_way(func, args, kwargs)
        if func in CONVERTING:
            return self.convert(func, args, kwargs)
        return self.call(func, args, kwargs)

    def call(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Call a function; what it makes lies on the device that it is given, or on that of its tensors."""
        wanted, pin = as_device(kwargs.get("device")), kwargs.pop("pin_memory", False)
        if wanted == GPU:
            kwargs["device"] = CPU
        own = wanted or (GPU if any(self.gpu.device_of(t) == GPU for t in tensors((args, kwargs))) else CPU)
        with self.here.at(own):
            result = func(*args, **kwargs)
        if wanted is not None and isinstance(result, Tensor):
            self.gpu.place(result, wanted)
        return self.pin(result) if pin else result

    def convert(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Make a tensor of values of the host, or of another tensor."""
        new = func is Tensor.new_tensor
        data = next(iter(args[new:]), None)
        source = self.gpu.device_of(data) if isinstance(data, Tensor) else CPU
        wanted, pin = as_device(kwargs.pop("device", None)), kwargs.pop("pin_memory", False)
        wanted = wanted or (self.gpu.device_of(args[0]) if new else source)
        if GPU not in (source, wanted) and wanted != CPU:
            kwargs["device"] = wanted
        with self.here.at(source):
            result = func(*args, **kwargs)
        if source == wanted:
            return self.pin(result) if pin else result
        if source == CPU and wanted == GPU:
            self.gpu.upload(func.__name__)
        elif source == GPU:
            self.gpu.download(func.__name__)
        return self.gpu.place(result.clone() if func is not torch.tensor else result, wanted)

    def pin(self, tensor: Tensor) -> Tensor:
        """Say that a tensor lies in pinned memory."""
        if self.gpu.device_of(tensor) == GPU:
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        self.gpu.put(unwrapped(tensor).untyped_storage(), PINNED)
        return tensor

    def pin_memory(self, tensor: Tensor, device: Any = None) -> Tensor:
        """Stand for `Tensor.pin_memory`."""
        return tensor if self.gpu.pinned(tensor) else self.pin(tensor.clone())

    def copy(self, tensor: Tensor, device: torch.device, settings: dict) -> Tensor:
        """Return a copy on another device."""
        non_blocking = settings.get("non_blocking", False)
        self.gpu.cross(tensor, device, non_blocking, "a copy to the other side")
        with self.here.at(self.gpu.device_of(tensor)):
            return self.gpu.place(tensor.to(**settings, copy=True), device)

    def move(self, tensor: Tensor, device: torch.device | None, **settings) -> Tensor:
        """Return the tensor on a device, copied only where something about it changes."""
        if {device, self.gpu.device_of(tensor)} == {CPU, GPU}:
            settings = {key: value for key, value in settings.items() if value is not None and key != "copy"}
            if tensor.requires_grad and torch.is_grad_enabled():
                return Crossing.apply(tensor, self, device, settings)
            return self.copy(tensor, device, settings)
        settings = {key: value for key, value in settings.items() if value is not None}
        with self.here.at(self.gpu.device_of(tensor)):
            return tensor.to(**settings, **({} if device in (None, CPU, GPU) else {"device": device}))

    def to(self, tensor: Tensor, *args, **kwargs) -> Tensor:
        """Stand for `Tensor.to` in its three forms."""
        other = args[0] if args else kwargs.pop("other", None)
        if isinstance(other, Tensor):
            names = ("other", "non_blocking", "copy")
            settings = {**dict(zip(names, args, strict=False)), **kwargs, "dtype": other.dtype}
            settings.pop("other", None)
            return self.move(tensor, self.gpu.device_of(other), **settings)
        by_type = isinstance(other, torch.dtype)
        names = ("dtype", "non_blocking", "copy") if by_type else ("device", "dtype", "non_blocking", "copy")
        settings = {**dict(zip(names, args, strict=False)), **kwargs}
        return self.move(tensor, as_device(settings.pop("device", None)), **settings)

    def cuda(self, tensor: Tensor, device: Any = None, non_blocking: bool = False, **kwargs) -> Tensor:
        """Stand for `Tensor.cuda`."""
        return self.move(tensor, as_device(device) or GPU, non_blocking=non_blocking, **kwargs)

    def cpu(self, tensor: Tensor, **kwargs) -> Tensor:
        """Stand for `Tensor.cpu`."""
        return self.move(tensor, CPU, **kwargs)

    def numpy(self, tensor: Tensor, *, force: bool = False):
        """Stand for `Tensor.numpy`."""
        self.refuse_array(tensor, force)
        return tensor.numpy(force=force)

    def array(self, tensor: Tensor, *args, **kwargs):
        """Stand for `Tensor.__array__`."""
        self.refuse_array(tensor, False)
        return tensor.__array__(*args, **kwargs)

    def refuse_array(self, tensor: Tensor, force: bool) -> None:
        """Raise a `TypeError` for a tensor of the GPU, unless a copy is asked for."""
        if self.gpu.device_of(tensor) != GPU:
            return
        if not force:
            words = "Use Tensor.cpu() to copy the tensor to host memory first."
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy. {words}")
        self.gpu.download("numpy")

    def tolist(self, tensor: Tensor) -> Any:
        """Stand for `Tensor.tolist`."""
        if self.gpu.device_of(tensor) == GPU:
            self.gpu.download("tolist")
        return tensor.tolist()

    def get_device(self, tensor: Tensor) -> int:
        """Stand for `Tensor.get_device`."""
        return 0 if self.gpu.device_of(tensor) == GPU else tensor.get_device()

    def own_way(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Call what torch computes otherwise where something watches, in its last digits: unwatched."""
        if len(_get_current_dispatch_mode_stack()) > 1 or any(t.requires_grad for t in tensors((args, kwargs))):
            return self.call(func, args, kwargs)
        device = self.gpu.device_of(args[0])
        if device == GPU:
            self.gpu.wait(func.__name__)
        with torch._C._DisableTorchDispatch():
            return self.gpu.place(func(*args, **kwargs), device)

    def backward(self, tensor: Tensor, gradient=None, retain_graph=None, create_graph=False, inputs=None) -> None:
        """Go backward with Python's view on, for the operations that are written in Python."""
        with self, self.here.at(self.gpu.device_of(tensor)):
            torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)


TOLD = {
    Tensor.device.__get__: lambda names, tensor, *_: names.gpu.device_of(tensor),
    Tensor.is_cuda.__get__: lambda names, tensor, *_: names.gpu.device_of(tensor).type == "cuda",
    Tensor.is_cpu.__get__: lambda names, tensor, *_: names.gpu.device_of(tensor).type == "cpu",
    Tensor.is_pinned: lambda names, tensor, *_: names.gpu.pinned(tensor),
    Tensor.get_device: Names.get_device,
    Tensor.to: Names.to,
    Tensor.cuda: Names.cuda,
    Tensor.cpu: Names.cpu,
    Tensor.numpy: Names.numpy,
    Tensor.__array__: Names.array,
    Tensor.tolist: Names.tolist,
    Tensor.pin_memory: Names.pin_memory,
    Tensor.backward: Names.backward,
}


class Operations(TorchDispatchMode):
    """Torch's view: every operation, those of a backward pass and of an optimizer included."""

    def __init__(self, gpu: SimulatedGPU, here: Here):
        super().__init__()
        self.gpu, self.here = gpu, here

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler at the first operation

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [*tensors(args), *tensors(kwargs)]
        on_host = [t for t in given if self.gpu.device_of(t) == CPU]
        on_gpu = len(on_host) < len(given) and any(self.gpu.device_of(t) == GPU for t in given)
        on_gpu = on_gpu or (not given and self.here.device == GPU)
        self.check_generator(args, kwargs, on_gpu)
        if not on_gpu:
            return func(*args, **kwargs)
        name = func._schema.name
        if on_host or name in INDEXING:
            self.check_mix(func, name, args, kwargs, on_host)
        if name in VALUES:
            self.gpu.download("a value")
        elif name in WAITING:
            self.gpu.wait(name)
        result = func(*args, **kwargs)
        host = {t.untyped_storage()._cdata for t in on_host}
        for tensor in tensors(result):
            if tensor.layout is torch.strided and tensor.untyped_storage()._cdata not in host:
                self.gpu.place(tensor, GPU)
        return result

    def check_generator(self, args: tuple, kwargs: dict, on_gpu: bool) -> None:
        """Raise torch's `RuntimeError` for random numbers from a generator of the other side."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch._C.Generator) and (value._cdata in self.gpu.generators) != on_gpu:
                wanted, found = ("cuda", "cpu") if on_gpu else ("cpu", "cuda")
                raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")

    def check_mix(self, func, name: str, args: tuple, kwargs: dict, on_host: list[Tensor]) -> None:
        """Count what crosses to the other side; raise torch's `RuntimeError` for what must not."""
        if name in INDEXING:
            self.check_index(name, args)
            return
        if name in CROSSING:
            if name == "aten::copy_":
                self.cross(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            elif name == "aten::_foreach_copy_":
                for target, source in zip(args[0], args[1], strict=True):
                    self.cross(target, source, args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            return
        numbers = takes_numbers(func)
        if any(tensor.dim() or not numbers for tensor in on_host):
            raise RuntimeError(f"{SAME} (when checking arguments of {name})")

    def cross(self, target: Tensor, source: Tensor, non_blocking: bool) -> None:
        """Count a copy from one tensor into another."""
        device = self.gpu.device_of(target)
        if device != self.gpu.device_of(source):
            if device == CPU and non_blocking and not self.gpu.pinned(target):
                non_blocking = False
            self.gpu.cross(source, device, non_blocking, "copy_")

    def check_index(self, name: str, args: tuple) -> None:
        """Check an indexing: indices of the host may index tensors of the GPU, not the other way round."""
        own, indices = self.gpu.device_of(args[0]), [t for t in args[1] if t is not None]
        value = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None
        filled = value is not None and value.numel() == 1
        for index in indices:
            place = self.gpu.device_of(index)
            if place == GPU and own == CPU:
                words = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                raise RuntimeError(words)
            if place == CPU and own == GPU:
                self.gpu.upload("indices")
            elif own == GPU and index.dtype in (torch.bool, torch.uint8) and not filled:
                self.gpu.wait("a mask as index")
        if value is not None and self.gpu.device_of(value) != own and value.dim():
            raise RuntimeError(f"{SAME} (when checking arguments of {name})")
