"""What one forward pass leaves behind, so that others can start where it first read a selected tensor.

What is recorded is decided operation by operation. Code outside the recorded submodules runs for every candidate,
and is called running code:

- an output that no running code touches is not kept; in its place stands a tensor without memory that refuses
  every operation (should a later candidate touch it after all, that candidate is computed in full);
- an output that running code writes into is handed back in a copy of its storage, one copy for all that share it;
- a submodule with effects beyond its outputs is run again, not remembered; the submodules inside it still are.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import TensorWeakRef

T = TypeVar("T")
TRANSPARENT = (bool, int, float, str, torch.Size, torch.dtype, torch.device, type(None))


class Miss(BaseException):
    """A replayed pass left the recorded path. No `Exception`, so that no network catches it."""


class Rerun(BaseException):
    """Frozen submodules cannot be remembered: they must run for every candidate."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.modules = modules


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


def storage_pointer(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor and its views share; -1 without such memory (sparse, say)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return -1


def pointers(values: Any) -> set[int]:
    """Return the addresses of all tensors in nested containers."""
    return {storage_pointer(x) for x in tree_flatten(values)[0] if isinstance(x, Tensor)}


def written_pointers(func, args: tuple, kwargs: dict) -> set[int]:
    """Return the addresses that an operation writes into, by its schema."""
    if not func._schema.is_mutable:
        return set()
    arguments = func._schema.arguments
    given = {**dict(zip((x.name for x in arguments), args, strict=False)), **kwargs}
    return pointers([given.get(x.name) for x in arguments if x.alias_info is not None and x.alias_info.is_write])


def is_plain(tensor: Tensor) -> bool:
    """Say whether a tensor is fully described by storage, offset, shape and strides."""
    special = tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor.requires_grad
    return type(tensor) is Tensor and tensor.layout is torch.strided and not special


def moved(tensor: Tensor, copies: dict[int, UntypedStorage]) -> Tensor:
    """Return the tensor's counterpart in a copy of its storage; tensors that share a storage share the copy."""
    pointer = storage_pointer(tensor)
    if pointer not in copies:
        copies[pointer] = tensor.untyped_storage().clone()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(copies[pointer], tensor.storage_offset(), tensor.shape, tensor.stride())


def copied(batch: Any) -> Any:
    """Return the batch with each of its tensors copied, strides and overlaps included."""

    def copy(tensor: Tensor) -> Tensor:
        if not is_plain(tensor) or tensor.numel() == 0:
            return tensor.clone()
        # The part of the storage that the tensor spans, for the storage may be a whole data set.
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return tensor.as_strided((span,), (1,)).clone().as_strided(tensor.shape, tensor.stride(), 0)

    values, structure = tree_flatten(batch)
    return tree_unflatten([copy(x) if isinstance(x, Tensor) else x for x in values], structure)


class Memory:
    """A storage in which remembered tensors lie, and what running code does to it."""

    def __init__(self):
        self.leaves: list[Leaf] = []
        self.touched = False
        self.written = False
        self.copies: dict[int, UntypedStorage] = {}

    def alive(self) -> bool:
        """Say whether a tensor still lies in it; otherwise its address may belong to another one."""
        return any(leaf.reference() is not None for leaf in self.leaves)

    def touch(self, written: bool) -> None:
        """Note that running code is about to read, or to write into, this storage."""
        self.touched = True
        for leaf in self.leaves:
            leaf.keep()
        # An inference tensor counts no versions, so that nobody could see a later write.
        self.written = self.written or written or any(x.kept is not None and x.kept.is_inference() for x in self.leaves)
        if self.written:
            # The write has not happened yet: these are still the values that the next candidate must see.
            for leaf in self.leaves:
                leaf.keep_copy(self.copies)


class Leaf:
    """One tensor among the outputs of a recorded call, or of the batch; kept once running code touches it."""

    def __init__(self, tensor: Tensor):
        self.reference = TensorWeakRef(tensor)
        self.stand_in = Forgotten(tensor)
        self.kept: Tensor | None = None
        self.version = 0
        self.in_copy = False

    def keep(self) -> None:
        """Keep the tensor, unless it is kept already or gone."""
        if self.kept is None:
            self.kept = self.reference()
            self.version = 0 if self.kept is None or self.kept.is_inference() else self.kept._version

    def keep_copy(self, copies: dict[int, UntypedStorage]) -> None:
        """Keep a kept tensor's counterpart in the copy of its storage instead."""
        if self.kept is not None and not self.in_copy:
            self.kept, self.in_copy = moved(self.kept, copies), True

    def give(self, copies: dict[int, UntypedStorage]) -> Tensor:
        """Return what a replayed pass gets; `copies` are the storages of this pass."""
        if self.kept is None:
            return self.stand_in
        return moved(self.kept, copies) if self.in_copy else self.kept

    def intact(self) -> bool:
        """Say whether the remembered values are still the recorded ones; a copy of them is never handed out."""
        return self.kept is None or self.in_copy or self.kept._version == self.version


@dataclass
class Values:
    """Nested containers, tensors replaced by leaves: the outputs of a recorded call, or the batch."""

    values: list[Any]
    structure: Any

    def give(self, copies: dict[int, UntypedStorage]) -> Any:
        """Return what a replayed pass gets."""
        return tree_unflatten([x.give(copies) if isinstance(x, Leaf) else x for x in self.values], self.structure)


@dataclass
class Given:
    """What a recorded call was given, and the random state before and after it.

    Attributes:
        values: leaves, tensors of running code and plain values.
        structure: of the nested containers in which they were.
        before: the random state.
        after: the random state.
    """

    values: list[Any]
    structure: Any
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]

    def drew(self) -> bool:
        """Say whether the call drew random numbers."""
        return not all(map(torch.equal, self.before, self.after))

    def same(self, args: tuple, kwargs: dict) -> bool:
        """Say whether another call with these arguments does the same, draws of random numbers included."""
        values, structure = tree_flatten((args, kwargs))
        if structure != self.structure or not all(map(same_value, self.values, values)):
            return False
        return not self.drew() or all(map(torch.equal, self.before, random_state()))


def same_value(recorded: Any, value: Any) -> bool:
    """Say whether a value is the one that a recorded call was given; a tensor that nobody kept is known by itself."""
    if isinstance(recorded, Leaf):
        if value is recorded.stand_in:
            return True
        if not recorded.intact():
            return False
        recorded = recorded.kept
    if recorded is value:
        return True
    if not isinstance(recorded, Tensor):
        return type(recorded) is type(value) and recorded == value
    if not isinstance(value, Tensor) or isinstance(value, Forgotten):
        return False
    alike = all(getattr(recorded, name) == getattr(value, name) for name in ("shape", "dtype", "device"))
    return alike and recorded.stride() == value.stride() and torch.equal(recorded, value)


def random_state() -> tuple[Tensor, ...]:
    """Return the states of torch's generators that a network may draw from, that of the current GPU included."""
    own = torch.random.get_rng_state()
    return (own, torch.cuda.get_rng_state()) if torch.cuda.is_initialized() else (own,)


def set_random_state(state: tuple[Tensor, ...]) -> None:
    """Give torch's generators the states of `random_state` back."""
    torch.random.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])


class Recording(TorchDispatchMode):
    """Watches one forward pass: records frozen calls until the first operation on a selected tensor.

    Args:
        selected: addresses of the tensors that differ between candidates.
        batch: the input of the pass; copied, so that the caller's own is never written into.
        given: keep what each recorded call was given, too, where passes differ in more than the selection.
        readers: submodules whose call counts as an operation on a selected tensor, however they read it.
    """

    def __init__(
        self, selected: set[int], batch: Any, given: bool = False, readers: Collection[nn.Module] = frozenset()
    ):
        super().__init__()
        self.selected, self.readers = selected, readers
        self.calls: list[tuple[nn.Module, Values]] = []
        self.given: list[Given] | None = [] if given else None
        self.memories: dict[int, Memory] = {}
        self.clean = True  # whether calls are recorded
        self.inside = False  # whether one is being recorded; then:
        self.own: set[int] = set()  # the storages that it allocated, and
        self.refused = False  # whether it did what a replay would lack
        values, structure = tree_flatten(copied(batch))
        self.batch = Values([self.remember(x) if self.can_remember(x, new=True) else x for x in values], structure)
        for memory in self.memories.values():
            memory.touch(written=False)

    def can_remember(self, value: Any, new: bool) -> bool:
        """Say whether a value is a tensor that can be handed back, in new or in remembered storage."""
        if not isinstance(value, Tensor) or not is_plain(value):
            return False
        pointer = storage_pointer(value)
        return new or pointer in self.own or self.is_remembered(pointer)

    def is_remembered(self, pointer: int) -> bool:
        """Say whether remembered tensors lie at an address."""
        return pointer in self.memories and self.memories[pointer].alive()

    def remember(self, tensor: Tensor) -> Leaf:
        """Return a new leaf, which holds the tensor weakly: what nobody holds or touches is not kept."""
        pointer = storage_pointer(tensor)
        if not self.is_remembered(pointer):
            self.memories[pointer] = Memory()
        leaf = Leaf(tensor)
        self.memories[pointer].leaves.append(leaf)
        return leaf

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler at the first operation: a second or two, and 60 MiB

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        taken, written = pointers((args, kwargs)), written_pointers(func, args, kwargs)
        if not self.inside:
            self.watch(taken, written)
            return func(*args, **kwargs)
        self.refused |= not self.selected.isdisjoint(taken) or not all(map(self.may_write, written))
        result = func(*args, **kwargs)
        self.own |= pointers(result) - taken - {-1}
        return result

    def watch(self, taken: set[int], written: set[int]) -> None:
        """Note what an operation of running code is about to read and to write into."""
        self.clean = self.clean and self.selected.isdisjoint(taken)
        for pointer in taken & self.memories.keys():
            self.memories[pointer].touch(pointer in written)

    def may_write(self, pointer: int) -> bool:
        """Say whether a recorded call may write there: running code has not seen the values before."""
        return pointer in self.own or (self.is_remembered(pointer) and not self.memories[pointer].touched)

    def run(self, module: nn.Module, forward: Callable, args, kwargs) -> Any:
        """Run a frozen submodule, and record the call if the pass has not yet read a selected tensor."""
        if module in self.readers:
            return self.read(forward(*args, **kwargs))
        if not self.clean:
            return forward(*args, **kwargs)
        inputs, structure = tree_flatten((args, kwargs))
        self.clean, self.inside, self.own, self.refused = False, True, set(), False
        before = None if self.given is None else random_state()
        kept = None if self.given is None else [self.kept(x) for x in inputs]
        try:
            result = forward(*args, **kwargs)
        finally:
            self.inside = False
        self.clean = True  # not reached after an exception: the rest runs for every candidate
        inputs_now, structure_now = tree_flatten((args, kwargs))
        outputs, structure_of_outputs = tree_flatten(result)
        # Nobody could tell whether an opaque object changes, now or for a later candidate.
        transparent = all(isinstance(x, (Tensor, *TRANSPARENT)) for x in inputs)
        same = structure == structure_now and all(x is y for x, y in zip(inputs, inputs_now, strict=True))
        known = all(isinstance(x, TRANSPARENT) or self.can_remember(x, new=False) for x in outputs)
        if self.refused or not (transparent and same and known):
            raise Rerun(module)
        leaves = [self.remember(x) if isinstance(x, Tensor) else x for x in outputs]
        self.calls.append((module, Values(leaves, structure_of_outputs)))
        if self.given is not None:
            self.given.append(Given(kept, structure, before, random_state()))
        return result

    def read(self, result: T) -> T:
        """Return the result of a reader, and note that it read; one that hands its tensor out leaves that to others."""
        if self.selected.isdisjoint(pointers(result)):
            self.refused, self.clean = True, False  # the former counts inside a recorded call alone
        return result

    def kept(self, value: Any) -> Any:
        """Return what is kept of an argument of a call: the leaf of a remembered tensor, a copy of another tensor."""
        if not isinstance(value, Tensor):
            return value
        memory = self.memories.get(storage_pointer(value))
        leaves = memory.leaves if memory is not None else []
        leaf = next((leaf for leaf in leaves if leaf.reference() is value), None)
        return value.detach().clone() if leaf is None else leaf

    def release(self, result: Any) -> None:
        """Let the caller do what it likes with a result: what it shares with remembered tensors becomes a copy."""
        for memory in self.memories.values():
            if any(leaf.kept is None and leaf.reference() is not None for leaf in memory.leaves):
                memory.touch(written=True)
        for pointer in pointers(result) & self.memories.keys():
            self.memories[pointer].touch(written=True)

    def intact(self) -> bool:
        """Say whether everything remembered, the batch included, still has its recorded values."""
        return all(leaf.intact() for memory in self.memories.values() for leaf in memory.leaves)
