"""Finding what may change in a network without a change of its function, by following its units through one pass.

The pass is recorded by `torch.export`. The inputs, the outputs and every tensor that is not selected have an order of
their own; whatever units are left that no operation ties to these are free.
"""

import contextlib
import copy
import io
import logging
import operator
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map_only

from pdiff.canonical.axes import Atom, Axis, extent, pin, resolve, whole
from pdiff.canonical.call import Call, Value, fits, pinned
from pdiff.canonical.rules import READ, rule_of
from pdiff.runtime.errors import PdiffError
from pdiff.weights.memory import memory_of
from pdiff.weights.units import Gain, Group, Place, Symmetries

WAY_OUT = "Implement the hook symmetries, or set fit.canonical to none."


def trace(model: nn.Module, inputs: tuple, names: Sequence[str]) -> Symmetries:
    """Return what may change in the tensors called `names` without a change of what a network returns.

    Args:
        model: stays as it is; followed in evaluation mode.
        inputs: one batch: `model(*inputs)` is the pass that is followed.
        names: the selected tensors, tied ones under one of their names.

    Raises:
        PdiffError: the pass cannot be recorded, or no unit is free.
    """
    program = recorded(model, inputs)
    tensors = _tensors(model, program, names)
    permuted, scaled = Pass(tensors, names, scale=False), Pass(tensors, names, scale=True)
    permuted.follow(program.graph)
    scaled.follow(program.graph)
    groups, notes = tuple(permuted.groups()), tuple(dict.fromkeys(permuted.withheld()))
    if not groups:
        why = f" ({notes[0]})" if notes else ""
        raise PdiffError(
            f"fit.canonical: got {len(names)} selected tensors of which no unit can change places{why}, "
            f"expected layers with all that reads them. {WAY_OUT}"
        )
    return Symmetries(groups, tuple(scaled.gains()), notes)


def recorded(model: nn.Module, inputs: tuple) -> torch.export.ExportedProgram:
    """Return a pass through a copy of a network in evaluation mode, on the CPU wherever the network lies.

    Raises:
        PdiffError: it cannot be recorded; the line names the module.
    """
    inside: list[str] = []
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # what fails is told below, in one line
    try:
        model, inputs = copy.deepcopy(model).cpu().eval(), tree_map_only(Tensor, Tensor.cpu, inputs)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))  # returns None: changes nothing
            module.register_forward_hook(lambda *_: inside.__delitem__(-1))
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.export.export(model, inputs, strict=False)
    except Exception as error:  # whatever a network's own code raises when its tensors have no values
        where = inside[-1] if inside and inside[-1] else type(model).__name__
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
        raise PdiffError(f"fit.canonical: {where} cannot be followed: {why}. {WAY_OUT}") from error
    finally:
        logging.disable(level)


def _tensors(model: nn.Module, program: torch.export.ExportedProgram, names: Sequence[str]) -> dict[str, str]:
    """Return by placeholders of a pass the network's tensors, a tied one by the name that it is selected by."""
    own = dict([*model.named_buffers(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)])
    selected = {memory_of(own[name]): name for name in names if name in own}
    signature = program.graph_signature
    placeholders = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {
        node: selected.get(memory_of(own[name]), name) if name in own else name for node, name in placeholders.items()
    }


def is_mutable(node: Node) -> bool:
    """Say whether an operation may write into its arguments."""
    return not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable


class Pass:
    """One pass through a network, its units permuted or scaled.

    Args:
        tensors: the network's tensors by the names of their placeholders.
        names: of the selected tensors.
        scale: whether units are scaled; else they are permuted.
    """

    def __init__(self, tensors: Mapping[str, str], names: Sequence[str], scale: bool):
        self.tensors = tensors
        self.names = frozenset(names)
        self.scale = scale
        self.parameters: dict[str, Value] = {}  # in the order of their first use
        self.read: dict[tuple[str, int], bool] = {}
        self.notes: list[str] = []
        self._values: dict[Node, object] = {}

    def follow(self, graph: torch.fx.Graph) -> None:
        """Go through the operations in their order."""
        for node in graph.nodes:
            if node.op == "output":
                self._hold(node.args)
            elif node.op == "call_function":
                self._values[node] = self._result(node)
                if not (node.users or is_mutable(node)):  # an output too, of a head that only training needs, say
                    self._hold(node)

    def _hold(self, argument: object) -> None:
        Call("output", {"": self._given(argument)}, None, self.scale).pin()

    def _given(self, argument: object) -> object:
        if isinstance(argument, Node):
            return self._values[argument] if argument in self._values else self._source(argument)
        if isinstance(argument, list | tuple):
            return [self._given(part) for part in argument]
        return argument

    def _source(self, node: Node) -> object:
        """Return what comes from outside: a tensor of the network, or an input or a constant."""
        name, like = self.tensors.get(node.name), node.meta.get("val")
        if name not in self.names:
            return pinned(like, by=name or True)
        if name not in self.parameters:
            self.parameters[name] = Value(tuple(map(whole, like.shape)), name)
        value = self.parameters[name]
        if not fits(value, like):  # tied in another form
            pin(*value.axes)
            return pinned(like)
        return value

    def _result(self, node: Node) -> object:
        if node.target is operator.getitem:
            values, number = node.args
            return self._given(values)[number]
        call = self._call(node)
        if call.result is None and not call.inplace:  # it checks something
            return None
        if self.scale:
            self._note_roles(call)
        rule = rule_of(call, getattr(node.target, "tags", ()))
        result = rule(call) if rule else None
        return result if result is not None and fits(result, call.result) else self._unknown(call, node)

    def _call(self, node: Node) -> Call:
        arguments, named = self._given(node.args), {name: self._given(value) for name, value in node.kwargs.items()}
        result = node.meta.get("val")
        if not isinstance(node.target, torch._ops.OpOverload):  # a part of the pass under another mode, say
            return Call(str(node.target), {"": [arguments, *named.values()]}, result, self.scale, inplace=True)
        schema = node.target._schema
        given = dict(zip((argument.name for argument in schema.arguments), arguments, strict=False)) | named
        name = schema.name.removeprefix("aten::").removesuffix("_")
        return Call(name, given, result, self.scale, is_mutable(node))

    def _unknown(self, call: Call, node: Node) -> object:
        free, result = call.pin(), pinned(call.result)
        if free and not self.scale:
            modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
            where = modules[-1] if modules and modules[-1] else "network"
            self.notes.append(f"{where}: {node.target}: its units keep their order")
        return result

    def _note_roles(self, call: Call) -> None:
        """Remember which axes of the network's tensors make units and which read them; none can do both."""
        for value in call.values():
            for axis, units in enumerate(value.axes if value.parameter else ()):
                read = value is call["weight"] and READ.get(call.name) == axis
                if self.read.setdefault((value.parameter, axis), read) != read:
                    pin(units)

    def groups(self) -> Iterator[Group]:
        """Yield the units that are free to change places."""
        for places in self._free().values():
            yield Group(places[0].tensor, len(places[0].entries), tuple(places))

    def gains(self) -> Iterator[Gain]:
        """Yield the units that are free to be scaled."""
        for places in self._free().values():
            read = tuple(place for place in places if self.read.get((place.tensor, place.axis)))
            made = tuple(place for place in places if not self.read.get((place.tensor, place.axis)))
            if made and read:
                yield Gain(made[0].tensor, len(made[0].entries), made, read)

    def withheld(self) -> Iterator[str]:
        """Yield why units that might be free to change places are not."""
        yield from self.notes
        told = set()
        for name, _, axis in self._axes():
            for atom in (atom for segment in resolve(axis) for atom in segment):
                if isinstance(atom.pinned, str) and atom.pinned not in told:
                    told.add(atom.pinned)
                    yield f"{name}: {atom.pinned} is not selected: the units along it keep their order"

    def _axes(self) -> Iterator[tuple[str, int, Axis]]:
        for name, value in self.parameters.items():
            for number, axis in enumerate(value.axes):
                yield name, number, axis

    def _free(self) -> dict[Atom, list[Place]]:
        while sum(_pin_inner(segment) for *_, axis in self._axes() for segment in resolve(axis)):
            pass
        found: dict[Atom, dict[tuple[str, int], list[Tensor]]] = {}
        for name, number, axis in self._axes():
            for atom, entries in _entries(axis):
                found.setdefault(atom, {}).setdefault((name, number), []).append(entries)
        return {
            atom: [Place(name, number, torch.cat(entries, 1)) for (name, number), entries in places.items()]
            for atom, places in found.items()
        }


def _pin_inner(segment: Iterable[Atom]) -> bool:
    """Leave but the outermost free units of a segment free (heads, not what is in each); say if that changed any."""
    inner = [atom for atom in segment if not atom.pinned][1:]
    return pin((tuple(inner),))


def _entries(axis: Axis) -> Iterator[tuple[Atom, Tensor]]:
    """Yield the free units of an axis, and the entries of each `(n, k)`."""
    offset = 0
    for segment in resolve(axis):
        entries = torch.arange(offset, offset + extent(segment)).reshape([atom.size for atom in segment])
        for place, atom in enumerate(segment):
            if not atom.pinned:
                yield atom, entries.movedim(place, 0).reshape(atom.size, -1)
        offset += extent(segment)
