"""Evaluating many candidates without repeating the frozen prefix of the network.

Candidates differ only in the selection. Every forward pass of a second, third, ... candidate therefore repeats
the first one exactly until the first operation that reads a selected tensor. The pass of the first candidate is
recorded: the outputs of the largest frozen submodules that finish before that operation. The passes after it
get these outputs handed back and compute the rest. Results are bit-identical to evaluating each candidate alone.

What is recorded is decided by what the code between those submodules does, seen operation by operation:

- an output that no running code touches is not kept; in its place stands a tensor without memory that refuses
  every operation (should a later candidate touch it after all, that candidate is computed in full);
- an output that running code writes into is kept as a copy, and handed back as a copy;
- a submodule that writes into something that running code has read is run again, not remembered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import TensorWeakRef

from pdiff.errors import PdiffError
from pdiff.task import Candidates

T = TypeVar("T")
TRANSPARENT = (bool, int, float, str, torch.Size, torch.dtype, torch.device, type(None))


class Miss(Exception):
    """A replayed pass left the recorded path."""


class Rerun(Exception):
    """A frozen submodule cannot be remembered: it must run for every candidate."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module


class Forgotten(Tensor):
    """A tensor's shape, dtype and device without its values; every operation on it raises `Miss`."""

    @staticmethod
    def __new__(cls, like: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )

    def __init__(self, like: Tensor):
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise Miss


@dataclass
class Kept:
    """A remembered tensor: its values, the version they had, and whether running code writes into it."""

    value: Tensor
    version: int
    written: bool = False

    def give(self) -> Tensor:
        """Return the tensor to hand back."""
        return self.value.clone() if self.written else self.value

    def intact(self) -> bool:
        """Say whether nothing wrote into the remembered values."""
        return self.value._version == self.version


class Leaf:
    """One tensor among the outputs of a recorded call (or among the inputs), watched until the pass ends."""

    def __init__(self, tensor: Tensor, hold: bool = False):
        self.reference = TensorWeakRef(tensor)
        self.stand_in = Forgotten(tensor)
        self.pointer = storage_pointer(tensor)
        self.kept: Kept | None = None
        if hold:
            self.touch(tensor, written=False)

    def touch(self, tensor: Tensor, written: bool) -> None:
        """Note that running code is about to read, or to write into, this tensor."""
        if self.kept is None:
            self.kept = Kept(tensor, tensor._version)
        if written and not self.kept.written:
            # The write has not happened yet: these are still the values that the next candidate must see.
            clone = self.kept.value.clone()
            self.kept = Kept(clone, clone._version, written=True)

    def give(self) -> Tensor:
        """Return what a replayed pass gets."""
        return self.stand_in if self.kept is None else self.kept.give()

    def intact(self) -> bool:
        """Say whether the remembered values, if any, are still the recorded ones."""
        return self.kept is None or self.kept.intact()


@dataclass
class Call:
    """One recorded call of a frozen submodule: its outputs, tensors replaced by leaves."""

    module: nn.Module
    outputs: list[Any]
    structure: Any

    def give(self) -> Any:
        """Return the outputs to hand back."""
        return tree_unflatten([x.give() if isinstance(x, Leaf) else x for x in self.outputs], self.structure)


def storage_pointer(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor and its views share."""
    return tensor.untyped_storage().data_ptr()


class Recording(TorchDispatchMode):
    """Watches one forward pass: records frozen calls until the first operation on a selected tensor.

    Args:
        selected: addresses of the tensors that differ between candidates.
        modules: the frozen submodules whose calls may be recorded.
        batch: the input of the pass; copied, so that the caller's own is never written into.
    """

    def __init__(self, selected: set[int], modules: list[nn.Module], batch: Any):
        super().__init__()
        self.selected = selected
        self.modules = modules
        self.calls: list[Call] = []
        self.leaves: dict[int, list[Leaf]] = {}
        self.depth = 0
        self.clean = True
        values, self.structure = tree_flatten(batch)
        self.inputs = [Leaf(x.clone(), hold=True) if isinstance(x, Tensor) else x for x in values]
        for leaf in self.input_leaves():
            self.leaves.setdefault(leaf.pointer, []).append(leaf)

    def input_leaves(self) -> list[Leaf]:
        """Return the tensors of the batch."""
        return [x for x in self.inputs if isinstance(x, Leaf)]

    def batch(self) -> Any:
        """Return the batch for one pass: where the network writes into an input, with a copy of that input."""
        return tree_unflatten([x.give() if isinstance(x, Leaf) else x for x in self.inputs], self.structure)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.depth == 0:
            self.watch(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def watch(self, func, args, kwargs) -> None:
        """Note what an operation of running code reads and writes."""
        schema = func._schema.arguments
        named = {argument.name: argument for argument in schema}
        for argument, value in [*zip(schema, args, strict=False), *((named.get(k), v) for k, v in kwargs.items())]:
            written = argument is not None and argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tree_flatten(value)[0]:
                if isinstance(tensor, Tensor):
                    self.watch_tensor(tensor, written)

    def watch_tensor(self, tensor: Tensor, written: bool) -> None:
        """Note that running code is about to read, or to write into, `tensor`."""
        pointer = storage_pointer(tensor)
        self.clean = self.clean and pointer not in self.selected
        for leaf in self.leaves.get(pointer, ()):
            remembered = leaf.reference()
            if remembered is not None:
                leaf.touch(remembered, written)

    def run(self, module: nn.Module, forward: Callable, args, kwargs) -> Any:
        """Run a frozen submodule, and record the call if the pass has not yet read a selected tensor."""
        if self.depth or not self.clean:
            return forward(*args, **kwargs)
        self.depth += 1
        try:
            result = forward(*args, **kwargs)
        finally:
            self.depth -= 1
        if not all(leaf.intact() for leaves in self.leaves.values() for leaf in leaves):
            raise Rerun(module)
        self.record(module, result)
        return result

    def record(self, module: nn.Module, result: Any) -> None:
        """Remember the outputs of a call, weakly: what nobody holds or touches is not kept."""
        outputs, structure = tree_flatten(result)
        if not all(isinstance(x, (Tensor, *TRANSPARENT)) for x in outputs):
            raise Rerun(module)  # nobody could tell whether a later candidate changes such an object
        outputs = [Leaf(x) if isinstance(x, Tensor) else x for x in outputs]
        for leaf in outputs:
            if isinstance(leaf, Leaf):
                # The address may have belonged to a tensor that is gone; its leaf can no longer be touched.
                alive = [other for other in self.leaves.get(leaf.pointer, ()) if other.reference() is not None]
                self.leaves[leaf.pointer] = [*alive, leaf]
        self.calls.append(Call(module, outputs, structure))

    def intact(self) -> bool:
        """Say whether everything remembered, the inputs included, still has its recorded values."""
        leaves = [x for call in self.calls for x in call.outputs if isinstance(x, Leaf)]
        return all(leaf.intact() for leaf in [*self.input_leaves(), *leaves])


class Playback:
    """Hands the recorded outputs back, call by call."""

    def __init__(self, calls: list[Call]):
        self.remaining = iter(calls)

    def run(self, module: nn.Module, forward: Callable, args, kwargs) -> Any:
        """Return the recorded outputs of the next call; behind the last one, run the submodule."""
        call = next(self.remaining, None)
        if call is None:
            return forward(*args, **kwargs)
        if call.module is not module:
            raise Miss
        return call.give()


class Replay:
    """Runs one forward pass for each of many candidates, the frozen prefix once.

    Args:
        model: the network, in eval mode; any `nn.Module`.
        candidates: what is put into it, one after another.
        forward: from a batch to a result, through `model` (default: call `model` with it). It must not use
            random numbers, nor keep results of one call for the next.
    """

    def __init__(self, model: nn.Module, candidates: Candidates, forward: Callable[[Any], T] | None = None):
        self.model = model
        self.candidates = candidates
        self.forward = forward or model
        self.rerun: set[nn.Module] = set()

    @torch.no_grad()
    def __call__(self, batch: Any) -> Iterator[T]:
        """Yield the result of each candidate on one batch.

        Raises:
            PdiffError: the network is in training mode, where a pass changes the network.
        """
        if any(module.training for module in self.model.modules()):
            raise PdiffError("replay: got a network in training mode, expected eval mode. Call model.eval() first.")
        recording = None
        for index in range(len(self.candidates)):
            self.candidates.load(self.model, index)
            if recording is None or not recording.intact():
                result, recording = self.record(batch)
            else:
                result = self.play(recording)
            yield result

    def record(self, batch: Any) -> tuple[T, Recording]:
        """Run one pass, and return its result and what the next candidates need of it."""
        selected = self.selected_pointers()
        while True:
            modules = [m for m in frozen_modules(self.model, selected) if m not in self.rerun]
            recording = Recording(selected, modules, batch)
            try:
                with intercept(modules, recording), recording:
                    return self.forward(recording.batch()), recording
            except Rerun as request:
                self.rerun.add(request.module)

    def play(self, recording: Recording) -> T:
        """Run one pass that gets the recorded outputs handed back."""
        try:
            with intercept(recording.modules, Playback(recording.calls)):
                return self.forward(recording.batch())
        except Miss:
            return self.forward(recording.batch())

    def selected_pointers(self) -> set[int]:
        """Return the addresses of the tensors that differ between candidates."""
        state = self.model.state_dict(keep_vars=True)
        return {storage_pointer(state[name]) for name in self.candidates.layout.names}


def frozen_modules(model: nn.Module, selected: set[int]) -> list[nn.Module]:
    """Return the largest submodules that hold no selected tensor; a tied tensor counts wherever it appears."""

    def holds_selected(module: nn.Module) -> bool:
        return any(storage_pointer(tensor) in selected for tensor in [*module.parameters(), *module.buffers()])

    found, unexplored = [], [model]
    while unexplored:
        for child in unexplored.pop().children():
            (unexplored if holds_selected(child) else found).append(child)
    return list(dict.fromkeys(found))


@contextmanager
def intercept(modules: list[nn.Module], player: Recording | Playback):
    """Let `player` decide, inside the block, what a call of one of the modules does."""
    own = {module: module.__dict__.get("forward") for module in modules}
    for module in modules:
        module.forward = _intercepted(module, module.forward, player)
    try:
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _intercepted(module: nn.Module, forward: Callable, player: Recording | Playback) -> Callable:
    return lambda *args, **kwargs: player.run(module, forward, args, kwargs)
