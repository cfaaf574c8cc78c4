"""What many candidates predict on a split: batches outside, candidates inside, the frozen prefix once per batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pdiff_plugins.openmmlab.data import Split
from pdiff_plugins.openmmlab.libraries import one_line
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pdiff import Candidates, PdiffError, Replay, isolated_seed, progress

T = TypeVar("T")


def predictions(
    model: nn.Module, split: Split, candidates: Candidates, title: str, read: Callable[[Sequence[Any]], T]
) -> Iterator[tuple[int, Sequence[Any], T]]:
    """Yield candidate, ground truths and predictions, batch by batch and for each batch candidate by candidate.

    Args:
        model: the network; its own predict path is taken, its data preprocessor and the split's pipeline before it.
        split: the data.
        candidates: what is put into the network, one after another.
        title: of the progress bar.
        read: from the predicted data samples of a batch to a few tensors.
    """

    def forward(batch: dict[str, Any]) -> T:
        samples = [sample.clone() for sample in batch["data_samples"]]  # predictions are written into them
        return read(model(batch["inputs"], samples, mode="predict"))

    replay = Replay(model.eval(), candidates, forward)
    loader = split.batches()
    with progress(title, len(candidates) * len(loader)) as advance:
        for data in loader:
            with torch.no_grad():
                batch = model.data_preprocessor(data, False)
            truths = batch["data_samples"]
            for index, predicted in enumerate(replay(batch)):
                yield index, truths, predicted
                advance()


def raw_batches(model: nn.Module, split: Split, samples: bool = False) -> Iterator[tuple[Tensor, Any, str]]:
    """Yield what a network takes in its mode `tensor` for each batch of a split.

    Args:
        model: the network.
        split: the data.
        samples: give it the data samples too, for which later stages of a detector ask.
    """
    for data in split.batches():
        with torch.no_grad():
            batch = model.data_preprocessor(data, False)
        yield batch["inputs"], batch["data_samples"] if samples else None, "tensor"


@contextmanager
def watch_outputs(modules: Sequence[nn.Module]) -> Iterator[Callable[[], Tensor]]:
    """Hand over a function that says whether all that some modules gave since it was last asked is a number `()`.

    The predictions do not tell: a score of NaN is below every threshold, and so no detection. Minus infinity is how
    heads mask what does not count (Grounding DINO's), and no fault.

    Args:
        modules: the modules; a list of them, which is never called, stands for what is in it.
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
        seen.extend((leaf < math.inf).all() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))

    def finite() -> Tensor:
        answer = torch.stack(seen).all() if seen else torch.tensor(True)
        seen.clear()
        return answer

    parts = [part for module in modules for part in (module if isinstance(module, nn.ModuleList) else [module])]
    handles = [part.register_forward_hook(look) for part in parts]
    try:
        yield finite
    finally:
        for handle in handles:
            handle.remove()


def check_prediction(model: nn.Module, split: Split) -> None:
    """Predict one batch, so that an operator or a file that is missing is met before anything is trained."""
    try:
        with torch.no_grad(), isolated_seed(0):
            model.eval().test_step(next(iter(split.batches())))
    except (PdiffError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever network and pipeline find wrong with each other
        raise PdiffError(
            f"task.model.config: its network cannot predict a batch of the test data ({one_line(error)}). "
            "Make the parts of the network fit each other, and the pipeline fit the network."
        ) from None
