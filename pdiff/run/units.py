"""What may change in the networks of a run without a change of their function: followed through a pass, or told."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pdiff.canonical.tracing import trace
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.seeding import isolated_seed
from pdiff.task.contract import fault, kind
from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Group, Place, Symmetries

if TYPE_CHECKING:
    from pdiff.run.run import Run

FEW = 32  # samples that outputs are compared on


def check_canonical(run: "Run") -> None:
    """Raise a `PdiffError` where the config asks for a canonical form that these networks cannot have."""
    if run.config.fit.canonical == "none":
        return
    if run.has_hook("inputs"):
        outputs_for(run, run.built.model, first_batch(run))
    find_symmetries(run)


def find_symmetries(run: "Run") -> Symmetries:
    """Return what may change in a vector of the run: as the plugin's hook says, else as a pass shows.

    Raises:
        PdiffError: nothing may, the plugin has neither hook, or a hook handed over something else.
    """
    if run.has_hook("symmetries"):
        found = run.hook.symmetries(task=run.built, names=run.layout.names)
        check_symmetries(run.name, found, run.layout)
        if not found.groups and run.config.fit.canonical == "permutation":
            line = "symmetries returned gains alone, which fit.canonical=permutation has no use for."
            raise fault(run.name, f"{line} Return groups too, or set permutation+scale.")
        return found
    if not run.has_hook("inputs"):
        line = "lacks the hook inputs, which fit.canonical needs to follow the units through a pass."
        raise fault(run.name, f"{line} Define it, or the hook symmetries, or set fit.canonical to none.")
    return trace(run.built.model, first_batch(run), run.layout.names)


def first_batch(run: "Run", split: str = "train") -> tuple:
    """Return the first samples of a split, as the network takes them."""
    batches = run.hook.inputs(task=run.built, split=split)
    batch = next(iter(batches), None) if isinstance(batches, Iterable) else batches
    if not isinstance(batch, tuple):
        line = f"inputs yielded {kind(batch)}, expected a tuple: the arguments of the network."
        raise fault(run.name, f"{line} Yield (images,), say.")
    return few(batch)


def few(batch: tuple) -> tuple:
    """Return the first samples of a batch, where all its tensors have equally many."""
    sizes = {leaf.shape[:1] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    if len(sizes) != 1 or sizes == {torch.Size([])}:
        return batch
    return tree_map(lambda leaf: leaf[:FEW] if isinstance(leaf, Tensor) else leaf, batch)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a network in evaluation mode for a while; each of its modules goes back to the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def outputs_for(run: "Run", model: nn.Module, batch: tuple) -> list[Tensor]:
    """Return what a network gives for a batch; what it draws is the same at every call.

    Raises:
        PdiffError: it does not take the batch, or gives nothing that can be compared.
    """
    with evaluating(model), isolated_seed(0):
        try:
            found = model(*batch)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a network's own code raises
            why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
            line = f"inputs yielded what the network does not take: {why}. Yield the arguments of task.model."
            raise fault(run.name, line) from error
    return outputs_of(found)


def check_symmetries(plugin: str, found: Any, layout: Layout) -> None:
    """Raise a `PdiffError` unless the hook `symmetries` named units of selected tensors, each place once."""
    if not isinstance(found, Symmetries):
        line = f"symmetries returned {kind(found)}, expected pdiff.Symmetries. Return pdiff.Symmetries(groups)."
        raise fault(plugin, line)
    check_kinds(plugin, "groups", found.groups, Group)
    check_kinds(plugin, "gains", found.gains, Gain)
    if not found.groups and not found.gains:
        line = "symmetries returned no group of units, so that there is nothing to bring into a form."
        raise fault(plugin, f"{line} Select more, or set fit.canonical to none.")
    shapes = {entry.name: entry.shape for entry in layout}
    for unit in (*found.groups, *found.gains):
        sides = {"places": unit.places} if isinstance(unit, Group) else {"made": unit.made, "read": unit.read}
        for side, places in sides.items():
            check_kinds(plugin, f"{side} of the units of {unit.name!r}", places, Place)
        if not isinstance(unit.name, str) or not isinstance(unit.size, int) or unit.size < 1:
            line = (
                f"symmetries returned {unit.size!r} units of name {unit.name!r}, expected a text and at least 1 unit."
            )
            raise fault(plugin, f"{line} Mend them.")
        check_places(plugin, unit.name, unit.size, [place for own in sides.values() for place in own], shapes)


def check_kinds(plugin: str, name: str, values: Any, expected: type) -> None:
    """Raise a `PdiffError` unless values are several of one class."""
    several = isinstance(values, Sequence) and not isinstance(values, str)
    wrong = next((value for value in values if not isinstance(value, expected)), None) if several else values
    if not several or wrong is not None:
        line = f"symmetries returned {kind(wrong)} as {name}, expected a tuple of pdiff.{expected.__name__}."
        raise fault(plugin, f"{line} Return ({expected.__name__}(...),), say.")


def check_places(
    plugin: str, name: str, size: int, places: Sequence[Place], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Raise a `PdiffError` unless all places of `size` units are there, and no entry is named twice."""
    taken: dict[tuple[str, int], Tensor] = {}
    for place in places:
        where = f"symmetries returned for the units of {name!r} a place in {place.tensor!r}"
        if place.tensor not in shapes:
            raise fault(plugin, f"{where}, which is not selected. {known(place.tensor, shapes)}")
        shape = shapes[place.tensor]
        if not isinstance(place.axis, int) or not 0 <= place.axis < len(shape):
            raise fault(plugin, f"{where}, axis {place.axis}, expected 0 to {len(shape) - 1}. Mend the axis.")
        entries = place.entries
        if not isinstance(entries, Tensor):
            raise fault(plugin, f"{where} with entries of {kind(entries)}, expected torch.Tensor. Mend them.")
        if entries.ndim != 2 or len(entries) != size or entries.dtype != torch.int64:
            got = f"entries {tuple(entries.shape)} of {entries.dtype}"
            raise fault(plugin, f"{where} with {got}, expected int64 ({size}, k): a row for each unit. Mend them.")
        if entries.numel() and not 0 <= int(entries.min()) <= int(entries.max()) < shape[place.axis]:
            raise fault(plugin, f"{where} with entries beyond 0 to {shape[place.axis] - 1}. Mend them.")
        key = (place.tensor, place.axis)
        taken[key] = torch.cat([taken.get(key, entries.new_empty(0)), entries.flatten()])
        if len(taken[key].unique()) < len(taken[key]):
            raise fault(plugin, f"{where} with an entry of axis {place.axis} twice. Name each once.")
    if not places:
        raise fault(plugin, f"symmetries returned for the units of {name!r} no place. Leave the group out.")


def outputs_of(outputs: Any) -> list[Tensor]:
    """Return the tensors of floating-point numbers that a network gave, in double precision on the CPU."""
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    leaves = [leaf for leaf in leaves if leaf.numel()]
    if not leaves:
        raise PdiffError(
            f"fit.canonical: the network gives {kind(outputs)} without a tensor of floating-point numbers, so that "
            "nothing can be compared. Let the hook inputs yield arguments for which it does."
        )
    return [leaf.detach().double().cpu() for leaf in leaves]


def change(before: list[Tensor], after: list[Tensor]) -> float:
    """Return the largest change of an output, relative to the largest one; infinity where they are not comparable."""
    if [leaf.shape for leaf in before] != [leaf.shape for leaf in after]:
        return float("inf")
    return max(change_of(*pair) for pair in zip(before, after, strict=True))


def change_of(before: Tensor, after: Tensor) -> float:
    """Return the largest change of a tensor, relative to its largest value; what is not finite must stay that."""
    finite = before.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return float("inf")
    if not finite.any():
        return 0.0
    largest, moved = before[finite].abs().max(), (after - before)[finite].abs().max()
    return (moved / largest).item() if largest > 0 else float(moved > 0) * float("inf") if moved > 0 else 0.0
