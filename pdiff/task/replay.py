"""Evaluating many candidates without repeating the frozen prefix of the network.

Candidates differ only in the selection. Every forward pass of a second, third, ... candidate therefore repeats
the first one exactly until the first operation that reads a selected tensor. The pass of the first candidate is
recorded: the outputs of the frozen submodules that finish before that operation. The passes after it get the
outputs of the largest of them handed back and compute the rest. Results are bit-identical to evaluating each
candidate alone; on a GPU where the frozen submodules have deterministic kernels (`pdiff.runtime.exact`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import UntypedStorage, nn
from torch.utils._pytree import tree_flatten

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import logger
from pdiff.task.recording import Forgotten, Miss, Recording, Rerun, copied, set_random_state, storage_pointer
from pdiff.task.task import Candidates

T = TypeVar("T")


class Playback:
    """Hands the batch and the recorded outputs back, call by call."""

    def __init__(self, recording: Recording):
        self.copies: dict[int, UntypedStorage] = {}
        self.batch = recording.batch.give(self.copies)
        self.remaining = iter(recording.calls)

    def run(self, module: nn.Module, forward: Callable, args, kwargs) -> Any:
        """Return the recorded outputs of the next call; behind the last one, run the submodule."""
        recorded, outputs = next(self.remaining, (None, None))
        if recorded is None:
            return forward(*args, **kwargs)
        if recorded is not module:
            raise Miss
        return outputs.give(self.copies)


class Replay:
    """Runs one forward pass for each of many candidates, the frozen prefix once.

    Args:
        model: the network, in eval mode; any `nn.Module`.
        candidates: what is put into it, one after another; loading one changes the selected tensors only.
        forward: from a batch to a result, through `model` (default: call `model` with it). It must not use
            random numbers, nor keep results of one call for the next, and must read and write tensors by torch's
            operations (`Tensor.tolist` of a selected tensor and raw pointers are none; a module without children may
            hand tensors that it holds itself to a compiled kernel).
    """

    def __init__(self, model: nn.Module, candidates: Candidates, forward: Callable[[Any], T] | None = None):
        self.model = model
        self.candidates = candidates
        self.forward = forward or model
        self.rerun: set[nn.Module] = set()
        self.misses = 0

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
            torch.clear_autocast_cache()  # the caller's autocast would go on with the cast weights of the last one
            if len(self.candidates) == 1:
                yield self.forward(copied(batch))  # nobody to remember anything for
                return
            if recording is None or not recording.intact():
                result, recording = self.record(batch)
            else:
                result = self.play(recording, batch)
            yield result

    def record(self, batch: Any) -> tuple[T, Recording]:
        """Run one pass, and return its result and what the next candidates need of it."""
        return recorded(self.model, self.candidates.layout.names, batch, self.forward, self.rerun)

    def play(self, recording: Recording, batch: Any) -> T:
        """Run one pass that gets the recorded outputs handed back."""
        player = Playback(recording)
        try:
            with intercept({module for module, _ in recording.calls}, player):
                result = remembered(self.forward(player.batch))
        except torch.OutOfMemoryError:
            raise
        except (Miss, Exception) as error:  # compiled code answers a tensor without memory with errors of its own
            self.misses += 1
            if self.misses == 1:
                logger.warning("replay: a candidate left the recorded path (%r) and is computed in full", error)
            return self.forward(copied(batch))
        if recording.intact():
            recording.release(result)
        return result


class Attentive(Playback):
    """Hands recorded outputs back as long as a pass does what the recorded one did; it may differ in more."""

    def __init__(self, recording: Recording):
        super().__init__(recording)
        self.given = iter(recording.given)

    def run(self, module: nn.Module, forward: Callable, args, kwargs) -> Any:
        """Return the recorded outputs of the next call, and draw what it drew; run it anew if it is another one."""
        recorded, outputs = next(self.remaining, (None, None))
        if recorded is None:
            return forward(*args, **kwargs)
        if recorded is not module:
            raise Rerun(module, recorded)
        given = next(self.given)
        if not given.same(args, kwargs):
            raise Rerun(*module.modules())
        if given.drew():
            set_random_state(given.after)
        return outputs.give(self.copies)


class Prefix:
    """Runs passes of networks that differ in the selection on one batch after another, in training: the prefix once.

    What comes before the first operation on a selected tensor is frozen. The passes behind it may be trained: their
    tensors are given by `torch.func.functional_call`, say, and not put into the network. They may differ in more,
    labels say: a frozen submodule is remembered as long as all give it the same, and its random draws are remembered
    with it. So each has the results of a whole pass, on a CPU bit for bit.

    Args:
        model: the network, in whatever mode it is trained in; none of its own tensors has a gradient.
        names: the selection.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]):
        self.model, self.names = model, tuple(names)
        self.rerun: set[nn.Module] = set()
        self.recording: Recording | None = None

    def begin(self, batch: Any, forward: Callable[[Any], Any]) -> None:
        """Run the network as it is on a batch, and remember its prefix until the next one, or until `end`.

        Running statistics among the selection, which a pass in training mode changes, are put back.

        Args:
            batch: the input.
            forward: as for a call, through the network as it is; it may run again later.
        """
        self.batch, self.forward = batch, forward
        own = self.model.state_dict()
        before = {name: own[name].clone() for name in self.names}
        with torch.enable_grad():  # some modules compute otherwise where no gradients are possible
            self.recording = recorded(self.model, self.names, batch, forward, self.rerun, given=True)[1]
        with torch.no_grad():
            for name, tensor in before.items():
                own[name].copy_(tensor)

    def end(self) -> None:
        """Forget the batch, and what is remembered of it."""
        self.recording = self.batch = self.forward = None

    def __call__(self, forward: Callable[[Any], T]) -> T:
        """Return what `forward` makes of the batch, its prefix handed back.

        `forward` may be called several times; so it begins with setting the state of what it draws.
        """
        while True:
            if not self.recording.intact():
                self.begin(self.batch, self.forward)
            player = Attentive(self.recording)
            try:
                with intercept({module for module, _ in self.recording.calls}, player):
                    return remembered(forward(player.batch))
            except Rerun as request:
                self.rerun.update(request.modules)
                self.begin(self.batch, self.forward)
            except Miss:
                return forward(copied(self.batch))


def remembered(result: T) -> T:
    """Return the result of a replayed pass; raise `Miss` where something in it was not kept."""
    if any(isinstance(x, Forgotten) for x in tree_flatten(result)[0]):
        raise Miss
    return result


def recorded(
    model: nn.Module,
    names: Iterable[str],
    batch: Any,
    forward: Callable[[Any], T],
    rerun: set[nn.Module],
    given: bool = False,
) -> tuple[T, Recording]:
    """Run one pass, and return its result and what other passes need of it.

    Args:
        model: the network.
        names: the selection, in which they differ.
        batch: the input.
        forward: from a batch to a result, through `model`.
        rerun: modules that are not remembered; those that cannot be are added.
        given: remember what each frozen submodule was given, too.
    """
    state = model.state_dict(keep_vars=True)
    selected = {storage_pointer(state[name]) for name in names}
    frozen, readers = frozen_modules(model, selected), readers_of(model, selected)
    while True:
        recording = Recording(selected, batch, given, readers)
        try:
            with intercept([*readers, *(m for m in frozen if m not in rerun)], recording), recording:
                result = forward(recording.batch.give({}))
        except Rerun as request:
            rerun.update(request.modules)
            continue
        recording.release(result)
        return result, recording


def frozen_modules(model: nn.Module, selected: set[int]) -> list[nn.Module]:
    """Return the submodules that hold no selected tensor; a tied tensor counts wherever it appears."""
    frozen: dict[nn.Module, None] = {}
    _collect_frozen(model, selected, frozen)
    return list(frozen)


def _collect_frozen(module: nn.Module, selected: set[int], frozen: dict[nn.Module, None]) -> bool:
    children = [_collect_frozen(child, selected, frozen) for child in module.children()]
    if not all(children) or holds(module, selected):
        return False
    frozen[module] = None
    return True


def readers_of(model: nn.Module, selected: set[int]) -> set[nn.Module]:
    """Return the submodules without children that hold a selected tensor: what they do first is to read it.

    A compiled kernel of theirs may take it by its address, so that torch sees no operation on it.
    """
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    return {module for module in leaves if holds(module, selected)}


def holds(module: nn.Module, selected: set[int]) -> bool:
    """Say whether a module itself, not those in it, holds a selected tensor."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return any(storage_pointer(tensor) in selected for tensor in own)


@contextmanager
def intercept(modules: Iterable[nn.Module], player: Recording | Playback):
    """Let `player` decide, inside the block, what a call of one of the modules does."""
    own = {module: module.__dict__.get("forward") for module in modules}
    for module in modules:
        module.__dict__["forward"] = _intercepted(module, module.forward, player)
    try:
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward


def _intercepted(module: nn.Module, forward: Callable, player: Recording | Playback) -> Callable:
    return lambda *args, **kwargs: player.run(module, forward, args, kwargs)
